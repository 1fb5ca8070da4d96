"""A list that only grows, and that can be waited on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Record(Generic[T]):
    """What was seen so far, in order."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._grew = anyio.Event()

    def add(self, item: T) -> None:
        """Append, and wake who waits."""
        self.items.append(item)
        grew, self._grew = self._grew, anyio.Event()
        grew.set()

    def count(self, wanted: Callable[[T], bool]) -> int:
        """Return how many of the items are `wanted`."""
        return sum(map(wanted, self.items))

    async def holds(self, wanted: Callable[[T], bool], *, times: int = 1, limit_s: float) -> bool:
        """Wait until `times` items are `wanted`; return whether that came true within `limit_s` seconds."""
        with anyio.move_on_after(limit_s):
            while self.count(wanted) < times:
                await self._grew.wait()
        return self.count(wanted) >= times
