"""The broker in memory: routes subjects, has logs, and can be made to fail as a real one does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import copy_context
from itertools import count
from typing import Protocol

from orchestrator.bus.memory.interest import Interest, Interests
from orchestrator.bus.memory.logs import MemoryLogs
from orchestrator.bus.memory.wire import MemoryLink
from orchestrator.bus.port import Clock, Message, Outgoing


class Linked(Protocol):
    """A bus of this broker."""

    @property
    def link(self) -> MemoryLink:
        """Where its connection stands."""


class MemoryBroker:
    """What all `MemoryBus`es of one system share. Lives on one event loop; `clock` is its wall clock.

    Deterministic: with a deterministic clock and loop, the same calls have the same effects in the same order.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self.clock = clock
        self._interests = Interests()
        self.logs = MemoryLogs(clock, self._interests.tell)
        self._links: dict[MemoryLink, None] = {}
        self._barred: set[MemoryLink] = set()
        self._running = True
        self._numbers = count(1)
        self._context = copy_context()

    # -- faults, for tests and simulation

    def cut(self, bus: Linked, *, on_answer: bool = False, lingering: bool = False) -> None:
        """Break one bus's connection, and let it not come back before `restore`. Requests under way end as `Uncertain`.

        on_answer: not now, but when the broker next answers it: what it asked has then happened, and it is not told.
        lingering: what it has sent arrives all the same, perhaps after it has come back on another connection.
        """
        wire = bus.link.wire
        if on_answer and wire is not None:
            wire.on_answer = lambda: self.cut(bus)
            return
        self._barred.add(bus.link)
        bus.link.end(lingering=lingering)

    def restore(self, bus: Linked) -> None:
        """Let a bus connect again."""
        self._barred.discard(bus.link)
        self._connect_soon()

    def stop(self) -> None:
        """End all connections and take no new ones. Logs stay, readers and duplicate windows do not."""
        self._running = False
        self.logs.restart()
        for link in self._links:
            link.end()

    def start(self) -> None:
        """Take connections again."""
        self._running = True
        self._connect_soon()

    # -- connections

    def join(self, link: MemoryLink) -> None:
        """Take in a bus; it is connected as soon as that can be."""
        self._links[link] = None
        self._connect_soon()

    def leave(self, link: MemoryLink) -> None:
        """Let a bus go."""
        self._links.pop(link, None)
        self._barred.discard(link)
        link.end()

    def _connect_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._connect)

    def _connect(self) -> None:
        for link in self._links:
            if self._running and link not in self._barred and not link.connected:
                link.begin(self._context)

    # -- messages

    def listen(self, link: MemoryLink, subjects: str, queue: str, deliver: Callable[[Message], None]) -> Interest:
        """Take in a subscription."""
        return self._interests.add(link, subjects, queue, deliver)

    def unlisten(self, interest: Interest) -> None:
        """Forget a subscription."""
        self._interests.remove(interest)

    def inbox(self) -> str:
        """Return the beginning of the reply subjects of one bus."""
        return f"_INBOX.{next(self._numbers)}"

    def publish(self, message: Message) -> bool:
        """Send a message to whoever listens, and store it where a log captures its subject; tell whether anybody took it."""
        heard = self._interests.tell(message)
        acknowledgement = self.logs.offer(Outgoing(message.subject, message.body, message.headers))
        if acknowledgement is not None and message.reply:
            self._interests.tell(Message(message.reply, acknowledgement))
        return heard or acknowledgement is not None
