"""A hypervisor's share of the worker's threads: one that hangs cannot take those that the others need."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from workers.engine.lane import HUNG_S, RELIEF_S, Lane, Lanes

T = TypeVar("T")


def shares(lanes: Lanes, count: int) -> list[Lanes]:
    """Return the lanes of each of `count` hypervisors: equal parts, at least one thread each. One alone has all."""
    return [lanes] if count == 1 else [_part(lanes, count) for _ in range(count)]


def _part(lanes: Lanes, count: int) -> Lanes:
    whole = (lanes.short, lanes.long, lanes.reads)
    short, long, reads = (Share(lane, max(1, lane.limit // count), spare=lane.spare // count) for lane in whole)
    return msgspec.structs.replace(lanes, short=short, long=long, reads=reads)


class Share:
    """A lane's part of at most `limit` calls at once, and `spare` further ones for such as hang; more wait their turn, in order."""

    def __init__(self, lane: Lane, limit: int, *, spare: int = 0) -> None:
        self.limit = limit
        self.spare = spare
        self._lane = lane
        self._running: dict[asyncio.Future[Any], tuple[asyncio.Future[Any], float]] = {}
        self._waiting: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._relief: asyncio.TimerHandle | None = None

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""
        return len(self._running) + len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether all calls that it may make hang, or the lane's; without spare ones nothing is taken to hang."""
        most = self.limit + self.spare
        return self._lane.full or (self.spare > 0 and len(self._running) >= most and self._hung() >= most)

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread. Abandoning the future leaves a call that runs running, and one that waits undone."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        self._pass_on()
        return future

    def withdraw(self, future: asyncio.Future[Any]) -> bool:
        """Take back a call that no thread has begun."""
        running = self._running.get(future)
        if future.done() or (running is not None and not self._lane.withdraw(running[0])):
            return False
        self._running.pop(future, None)
        future.cancel()
        return True

    def drop(self) -> None:
        """Cancel the calls that wait here; those that wait in the lane are the lane's to drop."""
        while self._waiting:
            self._waiting.popleft()[1].cancel()

    async def close(self, within_s: float) -> int:  # noqa: ARG002 - the lane is closed by who made it
        """Drop; the threads are the lane's. Return 0."""
        self.drop()
        return 0

    def _hung(self) -> int:
        since = asyncio.get_running_loop().time() - HUNG_S
        return sum(passed_on < since for _, passed_on in self._running.values())

    def _pass_on(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and (len(self._running) < self.limit or len(self._running) < self.limit + min(self.spare, self._hung())):
            call, future = self._waiting.popleft()
            if not future.done():
                passed = self._lane.submit(call)
                self._running[future] = passed, loop.time()
                passed.add_done_callback(lambda passed, future=future: self._returned(passed, future))  # type: ignore[misc]
        if self._waiting and self._relief is None and self.spare:
            self._relief = loop.call_later(RELIEF_S, self._relieve)

    def _relieve(self) -> None:
        """Make room for calls that wait, if those that run turn out to hang."""
        self._relief = None
        self._pass_on()

    def _returned(self, passed: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
        was_there = self._running.pop(future, None) is not None
        if passed.cancelled() and was_there:
            # The lane dropped it, and takes no more.
            self.drop()
            future.cancel()
            return
        error = None if passed.cancelled() else passed.exception()
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(passed.result())
        self._pass_on()
