"""A hypervisor's share of the worker's threads: one that hangs cannot take those that the others need."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from workers.engine.lane import Lane, Lanes

T = TypeVar("T")


def shares(lanes: Lanes, count: int) -> list[Lanes]:
    """Return the lanes of each of `count` hypervisors: equal parts, at least one thread each. One alone has all."""
    return [lanes] if count == 1 else [_part(lanes, count) for _ in range(count)]


def _part(lanes: Lanes, count: int) -> Lanes:
    short, long, reads = (Share(lane, max(1, lane.limit // count)) for lane in (lanes.short, lanes.long, lanes.reads))
    return msgspec.structs.replace(lanes, short=short, long=long, reads=reads)


class Share:
    """A lane's part of at most `limit` calls at once; further ones wait their turn, in order."""

    def __init__(self, lane: Lane, limit: int) -> None:
        self.limit = limit
        self._lane = lane
        self._running = 0
        self._waiting: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""
        return self._running + len(self._waiting)

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread. Abandoning the future leaves a call that runs running, and one that waits undone."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        self._pass_on()
        return future

    def drop(self) -> None:
        """Cancel the calls that wait here; those that wait in the lane are the lane's to drop."""
        while self._waiting:
            self._waiting.popleft()[1].cancel()

    async def close(self, within_s: float) -> int:  # noqa: ARG002 - the lane is closed by who made it
        """Drop; the threads are the lane's. Return 0."""
        self.drop()
        return 0

    def _pass_on(self) -> None:
        while self._waiting and self._running < self.limit:
            call, future = self._waiting.popleft()
            if not future.done():
                self._running += 1
                passed = self._lane.submit(call)
                passed.add_done_callback(lambda passed, future=future: self._returned(passed, future))  # type: ignore[misc]

    def _returned(self, passed: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
        self._running -= 1
        if passed.cancelled():
            # The lane dropped it, and takes no more.
            self.drop()
            future.cancel()
            return
        error = passed.exception()
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(passed.result())
        self._pass_on()
