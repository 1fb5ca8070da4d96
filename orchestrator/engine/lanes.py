"""Turns: for each domain one command at a time, in the order in which they came; different domains in parallel.

A command joins, at once and without waiting, the lanes of all keys that it touches: the domain's UUID and, where it is
addressed or created by name, `<project>/<name>`. It has its turn when it is first in all of them, and keeps it until it
leaves. A lane exists only while somebody is in it.

A name may turn out to mean a domain whose lane its command had not joined. Then it waits again, in that lane too. Who waits
stands in each lane by number, which is age, behind who has its turn. So everybody waits only for older commands or for one
that has its turn, and that waits for nobody: there are no circles.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import count

import anyio


class Ticket:
    """A command's place in its lanes. Whoever has it leaves in the end, come what may."""

    def __init__(self, lanes: Lanes, number: int, keys: list[str]) -> None:
        self.number = number
        self.keys = keys
        self.first = False
        """Whether it has its turn."""
        self._lanes = lanes
        self._granted: anyio.Event | None = None

    async def turn(self) -> None:
        """Wait until it is first in all its lanes."""
        while not self.first:
            self._granted = self._granted or anyio.Event()
            await self._granted.wait()

    def extend(self, key: str) -> None:
        """Join one more lane; unless that is empty, it has to wait for its `turn` again."""
        self._lanes.extend(self, key)

    def leave(self) -> None:
        """Make room for the next; idempotent."""
        self._lanes.leave(self)

    def grant(self) -> None:
        """Let it have its turn."""
        self.first = True
        if self._granted is not None:
            self._granted.set()

    def withhold(self) -> None:
        """Let it wait again."""
        self.first = False
        self._granted = None


class Lanes:
    """All lanes of one coordinator."""

    def __init__(self) -> None:
        self._lanes: dict[str, list[Ticket]] = {}
        self._numbers = count(1)

    def join(self, *keys: str) -> Ticket:
        """Take the last place in the lanes of `keys`."""
        ticket = Ticket(self, next(self._numbers), list(dict.fromkeys(keys)))
        for key in ticket.keys:
            self._lanes.setdefault(key, []).append(ticket)
        self._grant(ticket)
        return ticket

    def busy(self, key: str) -> bool:
        """Tell whether anybody is in the lane of `key`."""
        return key in self._lanes

    def beside(self, key: str) -> list[str]:
        """Return the other keys of all who are in the lane of `key`: what a name is about to mean."""
        return sorted({other for ticket in self._lanes.get(key, ()) for other in ticket.keys} - {key})

    def extend(self, ticket: Ticket, key: str) -> None:
        """Put a ticket into one more lane; in all its lanes it stands behind who has its turn, and who is older."""
        if key in ticket.keys:
            return
        for each in ticket.keys:
            self._lanes[each].remove(ticket)
        ticket.keys.append(key)
        ticket.withhold()
        for each in ticket.keys:
            lane = self._lanes.setdefault(each, [])
            behind = 1 if lane and lane[0].first else 0
            lane.insert(bisect_left(lane, ticket.number, lo=behind, key=_number), ticket)
        for each in ticket.keys:
            self._grant(self._lanes[each][0])

    def leave(self, ticket: Ticket) -> None:
        """Take a ticket out of its lanes, and give the next their turn."""
        keys, ticket.keys = ticket.keys, []
        for key in keys:
            lane = self._lanes[key]
            lane.remove(ticket)
            if not lane:
                del self._lanes[key]
        for key in keys:
            if key in self._lanes:
                self._grant(self._lanes[key][0])

    def _grant(self, ticket: Ticket) -> None:
        if not ticket.first and all(self._lanes[key][0] is ticket for key in ticket.keys):
            ticket.grant()


def _number(ticket: Ticket) -> int:
    return ticket.number
