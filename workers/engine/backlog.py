"""Events that wait, bounded for each domain. Beyond the bound all that wait of it go, and are counted: a look tells what they led to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from workers.drivers.port import Happening

MAX_EVENTS = 1_000
"""Events of one domain that may wait."""


class Held:
    """A hypervisor's events that came before its scan had ended, in their order."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._waiting: list[Happening] = []
        self._counts: Counter[str] = Counter()

    def add(self, happening: Happening) -> None:
        """Add an event; of a domain that has lost some, it goes with them."""
        uuid = happening.uuid
        if uuid in self.lost:
            self.lost[uuid] += 1
        elif self._counts[uuid] < MAX_EVENTS:
            self._counts[uuid] += 1
            self._waiting.append(happening)
        else:
            self.lost[uuid] = self._counts.pop(uuid) + 1
            self._waiting = [other for other in self._waiting if other.uuid != uuid]

    def take(self) -> dict[str, list[Happening]]:
        """Take out all events, by domain; none of a domain that has lost some, whose differences a look tells."""
        taken: dict[str, list[Happening]] = {uuid: [] for uuid in self.lost}
        self.lost.clear()
        for happening in self.release():
            taken.setdefault(happening.uuid, []).append(happening)
        return taken

    def release(self) -> Iterator[Happening]:
        """Take out the events that have not been lost, in their order."""
        waiting, self._waiting = self._waiting, []
        self._counts.clear()
        return iter(waiting)
