"""A connection in memory: each message takes one turn of the event loop a direction, and none arrives once it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import anyio

from orchestrator.bus.port import BusError, Uncertain

T = TypeVar("T")


class Answer(Generic[T]):
    """The way back of one question."""

    def __init__(self, wire: Wire, asked: asyncio.Future[T]) -> None:
        self._wire = wire
        self._asked = asked

    def give(self, value: T) -> None:
        """Answer with a value."""
        self._wire.send_back(lambda: None if self._asked.done() else self._asked.set_result(value))

    def fail(self, error: BusError) -> None:
        """Answer that it did not work."""
        self._wire.send_back(lambda: None if self._asked.done() else self._asked.set_exception(error))


class Wire:
    """One session of one bus."""

    def __init__(self) -> None:
        self.alive = True
        self.on_answer: Callable[[], None] | None = None
        """Called instead of the next answer that would travel."""
        self._asked: dict[asyncio.Future[Any], None] = {}  # a set in order, so that a cut wakes them in order

    def send(self, arrive: Callable[[], object]) -> None:
        """Let `arrive` happen a turn of the loop later, unless the wire is cut before."""
        asyncio.get_running_loop().call_soon(self._arrive, arrive)

    def send_back(self, arrive: Callable[[], None]) -> None:
        """Send what answers a question."""
        if self.on_answer is not None:
            self.on_answer()
        else:
            self.send(arrive)

    async def ask(self, act: Callable[[Answer[T]], None]) -> T:
        """Let the far end do `act`, and wait for what it answers. Raises that, or `Uncertain` if the wire is cut before."""
        asked: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked[asked] = None
        self.send(lambda: act(Answer(self, asked)))
        try:
            return await asked
        finally:
            del self._asked[asked]

    async def call(self, act: Callable[[], T]) -> T:
        """Let the far end call `act` and return its value. Raises as `act` does, and `Uncertain`."""

        def answered(answer: Answer[T]) -> None:
            try:
                answer.give(act())
            except BusError as error:
                answer.fail(error)

        return await self.ask(answered)

    def cut(self) -> None:
        """End it; what was asked and is not answered ends as `Uncertain`."""
        self.alive = False
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(Uncertain("the connection broke before the broker answered"))

    def _arrive(self, arrive: Callable[[], object]) -> None:
        if self.alive:
            arrive()


class MemoryLink:
    """Where the connection of one bus stands; the broker begins and ends its sessions."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        """The present session's, None between sessions."""
        self.session = 0
        self.since = 0.0
        self._changed = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        return self.wire is not None

    async def up(self, after: int = 0) -> int:
        """Wait until connected in a session later than `after`; return its number."""
        await anyio.lowlevel.checkpoint()
        while self.wire is None or self.session <= after:
            await self._change()
        return self.session

    async def down(self, session: int) -> None:
        """Wait until `session` has ended."""
        await anyio.lowlevel.checkpoint()
        while self.session < session or (self.session == session and self.wire is not None):
            await self._change()

    def begin(self) -> None:
        """Begin a session."""
        self.wire = Wire()
        self.session += 1
        self.since = anyio.current_time()
        self._tell()

    def end(self) -> None:
        """End the session, if there is one."""
        if self.wire is not None:
            self.wire.cut()
            self.wire = None
            self._tell()

    async def _change(self) -> None:
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
