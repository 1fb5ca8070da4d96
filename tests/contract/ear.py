"""An ear: collects what a bus hears, and waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import anyio

from orchestrator.bus.port import Bus, Message

PATIENCE_S = 20.0


class Ear:
    """Takes messages by `deliver`."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self._more = anyio.Event()

    def deliver(self, message: Message) -> None:
        """Take one message."""
        self.heard.append(message)
        more, self._more = self._more, anyio.Event()
        more.set()

    @property
    def bodies(self) -> list[bytes]:
        """Return the bodies heard so far."""
        return [message.body for message in self.heard]

    async def until(self, count: int) -> list[Message]:
        """Wait until so many messages were heard; return all."""
        with anyio.fail_after(PATIENCE_S):
            while len(self.heard) < count:
                await self._more.wait()
        return self.heard

    @classmethod
    @asynccontextmanager
    async def at(cls, bus: Bus, subject: str) -> AsyncIterator[Self]:
        """Listen on a bus."""
        ear = cls()
        async with bus.listen(subject, ear.deliver):
            yield ear
