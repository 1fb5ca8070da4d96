"""A place in a log: a pull consumer of JetStream, read through an inbox of its own.

One pull that waits is kept standing, so that what is new streams in. A pull that is never
answered, a gap in the consumer's own numbering, an end of the connection: each breaks the reader
(`Uncertain`), and its owner makes a new one where it was; nothing is skipped in silence.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from itertools import count
from typing import Self

import anyio
import msgspec

from orchestrator.bus.nats_channel import Channel
from orchestrator.bus.nats_client import STATUS
from orchestrator.bus.nats_session import Session
from orchestrator.bus.port import Message, Unavailable, Uncertain

_BATCH = 512
_WAIT_S = 10.0
_GRACE_S = 3.0
_OVER = frozenset({"404", "408"})

_numbers = count(1)


class _Ask(msgspec.Struct, omit_defaults=True):
    batch: int
    expires: int = 0
    no_wait: bool = False


class _Pull:
    """A pull under way: the inbox it was sent with, the messages yet to come, how long it stands, when it is lost if nothing ends it."""

    def __init__(self, inbox: str, batch: int, stands_s: float, lost: float) -> None:
        self.inbox = inbox
        self.left = batch
        self.stands = stands_s > 0
        self.lost = lost


class PullReader:
    """The port's `Reader`. Made by `on`."""

    def __init__(self, channel: Channel, connection: Session, next_subject: str, *, pending: int, broker_time: float) -> None:
        self._channel = channel
        self._connection = connection
        self._next = next_subject
        self._pending = pending
        self._broker_time = broker_time
        self._inbox = f"{channel.inbox}.r{next(_numbers)}"
        self._messages: deque[Message] = deque()
        self._seen = 0
        self._under_way: _Pull | None = None
        self._broken = ""
        self._woken = asyncio.Event()

    @classmethod
    async def on(cls, channel: Channel, connection: Session, log: str, name: str, *, pending: int, broker_time: float) -> Self:
        """Return a reader on consumer `name` of `log`; raise `Uncertain` if the connection has ended."""
        reader = cls(channel, connection, f"$JS.API.CONSUMER.MSG.NEXT.{log}.{name}", pending=pending, broker_time=broker_time)
        await reader._listen()
        return reader

    @property
    def pending(self) -> int:
        """Messages that matched and lay ahead when the reader was made."""
        return self._pending

    @property
    def broker_time(self) -> float:
        """The broker's clock when the reader was made, Unix seconds."""
        return self._broker_time

    async def take(self, limit: int, *, wait_s: float | None = None) -> list[Message]:
        """Return the next messages, as the port says."""
        if not self._messages:
            if wait_s is None:
                await self._look()
            else:
                await self._wait(wait_s)
        if not self._messages and self._broken:
            raise Uncertain(self._broken)
        messages = self._messages
        return [messages.popleft() for _ in range(min(limit, len(messages)))]

    async def _listen(self) -> None:
        # Weak: nobody leaves a reader, it is just no longer there; then its inbox goes too.
        take_in, broken = weakref.WeakMethod(self._take_in), weakref.WeakMethod(self._break)

        def deliver(message: Message) -> None:
            if (method := take_in()) is not None:
                method(message)

        def ended() -> None:
            if (method := broken()) is not None:
                method("the connection broke")

        release = await self._channel.attach(self._connection, f"{self._inbox}.*", deliver, ended)
        weakref.finalize(self, release).atexit = False

    async def _look(self) -> None:
        """Wait for messages, or until a pull sent by this very call has found nothing.

        Beside a pull that stands nothing can be found: the broker keeps for that one what it is about to send.
        """
        fresh = False
        while not self._messages and not self._broken:
            if self._under_way is None:
                if fresh:
                    return
                fresh = True
                self._under_way = await self._pull(_BATCH, expires_s=0.0)
            elif self._under_way.stands:
                return
            await self._wake(self._under_way, self._under_way.lost)

    async def _wait(self, wait_s: float) -> None:
        """Wait for messages for so long, with a pull standing at the broker."""
        clock = asyncio.get_running_loop().time
        until = clock() + wait_s
        while not self._messages and not self._broken and clock() < until:
            if self._under_way is None:
                self._under_way = await self._pull(_BATCH, expires_s=_WAIT_S)
            await self._wake(self._under_way, until)

    async def _pull(self, batch: int, *, expires_s: float) -> _Pull:
        ask = _Ask(batch, expires=int(expires_s * 1e9), no_wait=not expires_s)
        lost = asyncio.get_running_loop().time() + expires_s + _GRACE_S
        pull = _Pull(f"{self._inbox}.{next(_numbers)}", batch, expires_s, lost)
        try:
            await self._connection.send(self._next, msgspec.json.encode(ask), pull.inbox, {})
        except Unavailable:
            self._break("the connection broke")
        return pull

    async def _wake(self, pull: _Pull, until: float) -> None:
        """Wait until something happened or it is late; break where the broker has forgotten a pull."""
        clock = asyncio.get_running_loop().time
        if self._broken:
            return
        self._woken.clear()
        with anyio.move_on_after(min(until, pull.lost) - clock()):
            await self._woken.wait()
        if clock() >= pull.lost and pull is self._under_way:
            self._break("the broker lost a pull")

    def _take_in(self, message: Message) -> None:
        """Take what comes to the inbox: messages of the log, and words on how pulls ended."""
        status = message.headers.get(STATUS)
        if status is not None:
            self._end_pull(message, status)
        elif message.reply.startswith("$JS.ACK.") and not self._broken:
            tokens = message.reply.split(".")
            place = 5 if len(tokens) == 9 else 7  # newer brokers put domain and account before the names
            sequence, number, nanoseconds = map(int, tokens[place : place + 3])
            if number != self._seen + 1:
                self._break("messages were lost on their way from the broker")
                return
            self._seen = number
            self._messages.append(Message(message.subject, message.body, message.headers, "", sequence, nanoseconds / 1e9))
            self._count()
            self._woken.set()

    def _count(self) -> None:
        """Count a message on the pull that brought it."""
        if self._under_way is not None:
            self._under_way.left -= 1
            if not self._under_way.left:
                self._under_way = None

    def _end_pull(self, message: Message, status: str) -> None:
        if self._under_way is None or message.subject != self._under_way.inbox:
            return
        self._under_way = None
        if status not in _OVER:
            self._break(message.headers.get("Description") or f"the broker says {status}")
        self._woken.set()

    def _break(self, why: str) -> None:
        self._broken = self._broken or why
        self._woken.set()
