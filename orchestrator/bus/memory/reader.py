"""A reader of a log in memory, as the bus hands it out."""

from __future__ import annotations

import anyio

from orchestrator.bus.memory.place import Place
from orchestrator.bus.memory.wire import Wire
from orchestrator.bus.port import Message, Uncertain


class MemoryReader:
    """A reader over one session's wire."""

    def __init__(self, wire: Wire, place: Place) -> None:
        self._wire = wire
        self._place = place
        self.pending = place.pending
        self.broker_time = place.time

    async def take(self, limit: int, *, wait_s: float | None = None) -> list[Message]:
        """Return the next messages, none if `wait_s` went by without one. Raises `Uncertain` as the port says."""
        if not self._wire.alive:
            await anyio.lowlevel.checkpoint()
            raise Uncertain("the connection on which the reader was made is gone")
        taken: list[Message] = []
        with anyio.move_on_after(wait_s or None):
            taken = await self._wire.ask(lambda answer: self._place.pull(limit, wait_s or 0.0, answer))
        if taken:
            self._place.passed(taken)
        return taken
