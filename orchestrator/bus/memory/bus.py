"""One connection to a broker in memory: the port, as the real broker's adapter keeps it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import Self, TypeVar

import anyio

from orchestrator.bus.crowd import Crowd
from orchestrator.bus.memory.broker import MemoryBroker
from orchestrator.bus.memory.reader import MemoryReader
from orchestrator.bus.memory.wire import Answer, MemoryLink, Wire
from orchestrator.bus.port import (
    MAX_BATCH,
    NO_HEADERS,
    Clock,
    Deliver,
    Expect,
    Headers,
    LogConfig,
    Message,
    NoResponder,
    Outgoing,
    Refused,
    Serve,
    Start,
    Subscription,
    Unavailable,
    Uncertain,
)
from orchestrator.bus.queued import Queued
from orchestrator.bus.serving import Service
from orchestrator.log import get_logger

T = TypeVar("T")

_MAX_PAYLOAD = 1024 * 1024
_GRACE_S = 1.0

_log = get_logger()


class MemoryBus:
    """A bus of `broker`. `name` tells it apart in logs; `clock` is this side's wall clock."""

    def __init__(self, broker: MemoryBroker, *, name: str = "memory", clock: Clock = time.time) -> None:
        self.name = name
        self._broker = broker
        self._clock = clock
        self._link = MemoryLink()
        self._offset_s = 0.0
        self._inbox = broker.inbox()
        self._numbers = count(1)
        self._asked: dict[str, Answer[Message]] = {}

    @property
    def link(self) -> MemoryLink:
        """Where the connection stands."""
        return self._link

    @property
    def offset_s(self) -> float:
        """Broker's clock minus this side's, as last learnt from an answer; 0.0 before."""
        return self._offset_s

    async def __aenter__(self) -> Self:
        self._interest = self._broker.listen(self._link, f"{self._inbox}.*", "", self._answered)
        self._link.context = copy_context()
        self._broker.join(self._link)
        return self

    async def __aexit__(self, *exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()  # one turn of the loop: what was sent arrives
        self._broker.unlisten(self._interest)
        self._broker.leave(self._link)

    # -- messages

    async def publish(self, subject: str, body: bytes, headers: Headers = NO_HEADERS) -> None:
        """Send to whoever listens now. Raises `Unavailable` when not connected."""
        message = Message(subject, body, headers)
        _check_size(message)
        await anyio.lowlevel.checkpoint()
        self._wire().send(partial(self._broker.publish, message))

    async def request(self, subject: str, body: bytes, headers: Headers = NO_HEADERS, *, timeout_s: float) -> Message:
        """Ask and return the answer. Raises `NoResponder`, `Uncertain` (no answer in time), `Unavailable`."""
        message = Message(subject, body, headers, f"{self._inbox}.{next(self._numbers)}")

        def asked(answer: Answer[Message]) -> None:
            self._asked[message.reply] = answer
            if not self._broker.publish(message):
                answer.fail(NoResponder(f"nobody answers on {subject}"))

        _check_size(message)
        try:
            with anyio.fail_after(timeout_s):
                return await self._wire().ask(asked)
        except TimeoutError:
            raise Uncertain(f"no answer within {timeout_s:g} s") from None
        finally:
            self._asked.pop(message.reply, None)

    @asynccontextmanager
    async def subscribe(self, subject: str, *, queue: str = "", limit: int = 65_536) -> AsyncIterator[Subscription]:
        """Listen for as long as the context lasts; what exceeds `limit` waiting messages is dropped and counted."""
        queued = Queued(limit)
        try:
            async with self._tap(subject, queue, queued.put):
                yield queued
        finally:
            queued.leave()

    @asynccontextmanager
    async def listen(self, subject: str, deliver: Deliver) -> AsyncIterator[None]:
        """Hand each message straight to `deliver`; what that raises is logged."""
        async with self._tap(subject, "", deliver):
            yield

    @asynccontextmanager
    async def serve(
        self, service: str, subject: str, answer: Serve, *, version: str, metadata: Mapping[str, str], limit: int = 4096
    ) -> AsyncIterator[None]:
        """Answer requests in the queue group of `service`; see the port. On leaving, gives those under way a second."""
        async with Crowd() as tasks:
            served = Service(
                service, subject, answer, version=version, metadata=metadata, limit=limit, send=self.publish, tasks=tasks, clock=self._clock
            )
            async with AsyncExitStack() as taps:
                await taps.enter_async_context(self._tap(subject, service, served.take))
                for found in served.discovery:
                    await taps.enter_async_context(self._tap(found, "", served.tell))
                yield
            with anyio.move_on_after(_GRACE_S):
                await served.idle()

    @asynccontextmanager
    async def _tap(self, subject: str, queue: str, deliver: Deliver) -> AsyncIterator[None]:
        """Hand each message straight to `deliver`, as a member of `queue` if that is not empty."""

        def delivered(message: Message) -> None:
            try:
                deliver(message)
            except Exception:  # noqa: BLE001  # the root of all that a message causes
                _log.exception("bus.deliver_failed", bus=self.name, subject=message.subject)

        interest = self._broker.listen(self._link, subject, queue, delivered)
        try:
            await anyio.lowlevel.checkpoint()
            yield
        finally:
            self._broker.unlisten(interest)

    # -- logs

    async def append(self, message: Outgoing, expect: Expect | None = None) -> int:
        """Store one message; return its sequence. Raises as the port says."""
        _check_size(message)
        return await self._call(lambda: self._broker.logs.append(message, expect))

    async def append_all(self, messages: Sequence[Outgoing], expect: Expect) -> int:
        """Store up to `MAX_BATCH` messages as one, all or none; return the last one's sequence."""
        if not 0 < len(messages) <= MAX_BATCH:
            raise Refused(f"a batch has 1 to {MAX_BATCH} messages, not {len(messages)}")
        if len(messages) == 1:
            return await self.append(messages[0], expect)
        for message in messages:
            _check_size(message)
        return await self._call(lambda: self._broker.logs.append_all(messages, expect))

    async def last(self, log: str, subjects: str) -> Message | None:
        """Return the last message under `subjects`, None if there is none."""
        return await self._call(lambda: self._broker.logs.last(log, subjects))

    async def reader(self, log: str, name: str, subjects: str, start: Start) -> MemoryReader:
        """Make a reader called `name`, instead of an earlier one of that name."""
        wire = self._wire()
        return MemoryReader(wire, await self._call(lambda: self._broker.logs.place(log, name, subjects, start)))

    async def purge(self, log: str, subjects: str, up_to: int) -> int:
        """Remove messages under `subjects` with a sequence ≤ `up_to`; return how many."""
        return await self._call(lambda: self._broker.logs.purge(log, subjects, up_to))

    async def provision(self, logs: Sequence[LogConfig]) -> None:
        """Make each log, or update it in place."""
        await self._call(lambda: self._broker.logs.provision(logs))

    def _wire(self) -> Wire:
        if self._link.wire is None:
            raise Unavailable("the broker in memory is stopped, or the connection to it is cut")
        return self._link.wire

    async def _call(self, act: Callable[[], T]) -> T:
        result = await self._wire().call(act)
        self._offset_s = self._broker.clock() - self._clock()
        return result

    def _answered(self, message: Message) -> None:
        answer = self._asked.pop(message.subject, None)
        if answer is not None:
            answer.give(message)


def _check_size(message: Message | Outgoing) -> None:
    if len(message.body) > _MAX_PAYLOAD:
        raise Refused(f"message of {len(message.body)} bytes on {message.subject}: the broker takes {_MAX_PAYLOAD}")
