"""A bus that dies, or loses its connection, at a chosen exchange with the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, TypeVar

import anyio

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.memory.wire import Wire
from orchestrator.bus.port import NO_HEADERS, Headers, Unavailable

T = TypeVar("T")

Way = Literal["killed before", "killed after", "cut before", "cut after"]
"""What happens at the exchange: the process ends or its connection breaks, before the broker did what was asked, or after."""

WAYS: tuple[Way, ...] = ("killed before", "killed after", "cut before", "cut after")


class MortalBus(MemoryBus):
    """Counts what is asked of the broker; at number `at` it fails in the given way. `die` is called where the process ends."""

    def __init__(self, broker: MemoryBroker, *, at: int, way: Way) -> None:
        super().__init__(broker, name="mortal")
        self.exchanges = 0
        self.die: Callable[[], None] = lambda: None
        self._mortal_broker = broker
        self._at = at
        self._way = way

    async def publish(self, subject: str, body: bytes, headers: Headers = NO_HEADERS) -> None:
        """Send, unless this is the one."""
        if self._is_the_one() and self._way.endswith("before"):
            await self._fail()
        await super().publish(subject, body, headers)

    async def _call(self, act: Callable[[], T]) -> T:
        if not self._is_the_one():
            return await super()._call(act)
        if self._way == "cut after":
            self._mortal_broker.cut(self, on_answer=True)
            self._restore_soon(self.link.wire)
            return await super()._call(act)
        if self._way == "killed after":
            await super()._call(act)
        await self._fail()
        raise Unavailable("the connection was cut")

    def _is_the_one(self) -> bool:
        self.exchanges += 1
        return self.exchanges == self._at

    async def _fail(self) -> None:
        self._mortal_broker.cut(self)
        if self._way == "cut before":
            self._restore_soon()
            return
        self.die()
        await anyio.sleep_forever()

    def _restore_soon(self, wire: Wire | None = None) -> None:
        def restore() -> None:
            if wire is not None:
                wire.on_answer = None  # a reader on it that is answered now would cut the new one
            self._mortal_broker.restore(self)

        asyncio.get_running_loop().call_later(0.01, restore)
