"""A connection in memory: each message takes one turn of the event loop a direction, and none arrives once it is cut.

A simulation gives it weather, which makes messages late. What arrives at the broker runs in the broker's context, what
arrives at a bus in that of who entered the bus, so that an event loop can tell whose work a callback is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar

import anyio

from orchestrator.bus.port import BusError, Message, Uncertain

T = TypeVar("T")


class Weather(Protocol):
    """What a wire does to messages."""

    def delay_s(self) -> float:
        """Return the seconds that what is sent now is on its way, at least; nothing overtakes what was sent before it."""

    def copies(self, message: Message) -> int:
        """Return how often a message that no log answers for arrives: a push, a result, an answer."""


class Fair:
    """Weather in which each message arrives at once, and once."""

    def delay_s(self) -> float:
        """Return 0."""
        return 0.0

    def copies(self, message: Message) -> int:  # noqa: ARG002 - it is the same for all
        """Return 1."""
        return 1


FAIR = Fair()


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


class _Way:
    """One direction of a wire: all that is sent arrives in its order, as long as it is open."""

    def __init__(self, weather: Weather, context: Context | None) -> None:
        self.open = True
        self._weather = weather
        self._context = context
        self._late: deque[tuple[float, Callable[[], object]]] = deque()

    def send(self, arrive: Callable[[], object]) -> None:
        """Let `arrive` happen a turn of the loop later, or as much later as the weather has it."""
        loop = asyncio.get_running_loop()
        delay_s = self._weather.delay_s()
        if not self._late and delay_s <= 0.0:
            loop.call_soon(self._arrive, arrive, context=self._context)
            return
        due = max(loop.time() + delay_s, self._late[-1][0] if self._late else 0.0)
        self._late.append((due, arrive))
        if len(self._late) == 1:
            loop.call_at(due, self._arrive_late, context=self._context)

    def _arrive_late(self) -> None:
        _, arrive = self._late.popleft()
        if self._late:
            asyncio.get_running_loop().call_at(self._late[0][0], self._arrive_late, context=self._context)
        self._arrive(arrive)

    def _arrive(self, arrive: Callable[[], object]) -> None:
        if self.open:
            arrive()


class Wire:
    """One session of one bus. near, far: the contexts of bus and broker."""

    def __init__(self, weather: Weather = FAIR, *, near: Context | None = None, far: Context | None = None) -> None:
        self.alive = True
        self.on_answer: Callable[[], None] | None = None
        """Called instead of the next answer that would travel."""
        self._weather = weather
        self._up, self._down = _Way(weather, far), _Way(weather, near)
        self._asked: dict[asyncio.Future[Any], None] = {}  # a set in order, so that a cut wakes them in order

    def send(self, arrive: Callable[[], object]) -> None:
        """Let `arrive` happen at the broker, unless the wire is cut before."""
        self._up.send(arrive)

    def bring(self, message: Message, deliver: Callable[[Message], object]) -> None:
        """Hand a message to who listens on the bus's side, as often as the weather has it."""
        for _ in range(self._weather.copies(message)):
            self._down.send(lambda: deliver(message))

    def send_back(self, arrive: Callable[[], None]) -> None:
        """Send what answers a question."""
        if self.alive and self.on_answer is not None:
            self.on_answer()
        else:
            self._down.send(arrive)

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

    def cut(self, *, lingering: bool = False) -> None:
        """End it; what was asked and is not answered ends as `Uncertain`. lingering: what was sent reaches the broker all the same."""
        self.alive = False
        self._up.open, self._down.open = lingering, False
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(Uncertain("the connection broke before the broker answered"))


class MemoryLink:
    """Where the connection of one bus stands; the broker begins and ends its sessions."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        """The present session's, None between sessions."""
        self.weather: Weather = FAIR
        self.context: Context | None = None
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

    def begin(self, far: Context | None = None) -> None:
        """Begin a session; `far` is the broker's context."""
        self.wire = Wire(self.weather, near=self.context, far=far)
        self.session += 1
        self.since = anyio.current_time()
        self._tell()

    def end(self, *, lingering: bool = False) -> None:
        """End the session, if there is one. lingering: what was sent reaches the broker all the same."""
        if self.wire is not None:
            self.wire.cut(lingering=lingering)
            self.wire = None
            self._tell()

    async def _change(self) -> None:
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
