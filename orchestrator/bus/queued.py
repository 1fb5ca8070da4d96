"""A bounded queue of live messages, what `subscribe` gives on any bus."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from orchestrator.bus.port import Message


class Queued:
    """The port's `Subscription`: `put` on one side, iteration on the other, at most `limit` messages between."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._left = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Messages dropped so far since the queue was full."""
        return self._dropped

    def put(self, message: Message) -> None:
        """Add a message, or drop and count it."""
        if len(self._messages) >= self._limit:
            self._dropped += 1
            return
        self._messages.append(message)
        self._arrived.set()

    def leave(self) -> None:
        """End every iteration."""
        self._left = True
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Message]:
        while not self._left:
            while self._messages:
                yield self._messages.popleft()
            self._arrived.clear()
            if not self._left:
                await self._arrived.wait()
