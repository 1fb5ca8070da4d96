"""A driver as one run of a worker holds it: with the verbs of somebody's own, and let go for good when the run ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.protocol.verb import Args, Verb
from workers.drivers.port import Ability, Driver, JobProgress, Listener, Lost, Sighting, Tag


class HeldDriver:
    """The port's `Driver` over `driver`. `own`: by name, verbs that bring the function that carries them out."""

    def __init__(self, driver: Driver, own: Mapping[str, Verb]) -> None:
        self._driver = driver
        self._own = own
        self._left = False

    @property
    def uri(self) -> str:
        """The connection URI."""
        return self._driver.uri

    def open(self, listener: Listener) -> Ability:
        """Open, and add the own verbs to what it can do. Raises `Lost` if it was let go of meanwhile: then nothing stays open."""
        ability = self._driver.open(listener)
        if self._left:
            # The run ended while this hung: whoever closed then found nothing to close.
            self._driver.close()
            raise Lost(f"{self.uri} was let go of while it was being opened")
        added = [name for name in self._own if name not in ability.verbs]
        return msgspec.structs.replace(ability, verbs=[*ability.verbs, *added])

    def let_go(self) -> None:
        """Have it closed as soon as it is open, should it hang in `open` now."""
        self._left = True

    def close(self) -> None:
        """Close it."""
        self._driver.close()

    def free_memory_kib(self) -> int:
        """Ask the driver."""
        return self._driver.free_memory_kib()

    def scan(self) -> list[Sighting]:
        """Ask the driver."""
        return self._driver.scan()

    def look(self, uuid: str) -> Sighting | None:
        """Ask the driver."""
        return self._driver.look(uuid)

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Carry out a verb: by the function that it brings, else by the driver."""
        own = self._own.get(verb)
        if own is None or own.run is None:
            self._driver.run(verb, uuid, args, tag)
        else:
            own.run(self._driver, uuid, args)

    def progress(self, uuid: str) -> JobProgress | None:
        """Ask the driver."""
        return self._driver.progress(uuid)

    def abort(self, uuid: str) -> None:
        """Ask the driver."""
        self._driver.abort(uuid)

    def mark(self, uuid: str, incarnation: str) -> None:
        """Ask the driver."""
        self._driver.mark(uuid, incarnation)

    def ask(self, query: str, uuid: str) -> Any:
        """Ask the driver."""
        return self._driver.ask(query, uuid)
