"""Threads for calls that block, and perhaps for ever.

A lane has a bounded number of daemon threads that drain one queue: several calls cost one wake-up, an idle lane costs
nothing, and a thread that hangs in libvirt keeps neither the loop nor the process. Short calls, long jobs and reads
each have a lane, so that an abort is never stuck behind what it should abort. Calls cannot be cancelled, only left.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

T = TypeVar("T")

PATIENCE_S = 0.005
"""Seconds for which a call waits for a busy thread before another one is started: threads that contend for short calls
cost more than they win, and one that hangs must hold up nobody."""


async def done_within(call: asyncio.Future[Any], seconds: float) -> None:
    """Wait until `call` is done or time is up, whichever comes first; the call goes on. Costs a fraction of `asyncio.wait`."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, wake)
    call.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        call.remove_done_callback(wake)


class Lane(Protocol):
    """Runs blocking calls off the loop."""

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread; the future has its result or exception. Abandoning the future leaves the call running."""


class _Job(msgspec.Struct, frozen=True):
    call: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    since: float


class ThreadLane:
    """A lane of real threads, started as they are needed, up to `limit`."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._active = 0
        self._reached = 0.0
        self._watch: asyncio.TimerHandle | None = None

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""
        return self._active

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread; more than the lane's limit wait their turn."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._active += 1
        self._jobs.put(_Job(call, future, loop, time.monotonic()))
        if not self._threads:
            self._grow()
        elif self._watch is None and self._threads < self._limit:
            self._watch = loop.call_later(PATIENCE_S, self._check, loop)
        return future

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a thread if the calls that wait have waited for long."""
        self._watch = None
        if self._jobs.empty():
            return
        if time.monotonic() - self._reached > PATIENCE_S:
            self._grow()
        if self._threads < self._limit:
            self._watch = loop.call_later(PATIENCE_S, self._check, loop)

    def _grow(self) -> None:
        with self._lock:
            self._threads += 1
        threading.Thread(target=self._drain, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _drain(self) -> None:
        while self._rests():
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            self._reached = job.since
            try:
                result = job.call()
            except BaseException as error:  # noqa: BLE001 - the root of this thread; the waiter gets whatever it was
                self._report(job, error, None)
            else:
                self._report(job, None, result)

    def _rests(self) -> bool:
        """Tell whether this thread shall wait for the next call: one that waits is enough, the others end."""
        with self._lock:
            if self._idle:
                self._threads -= 1
                return False
            self._idle += 1
            return True

    def _report(self, job: _Job, error: BaseException | None, result: Any) -> None:
        try:
            job.loop.call_soon_threadsafe(self._finish, job.future, error, result)
        except RuntimeError:
            # The loop is closed: nobody waits any more, and what happened is settled at the next start.
            return

    def _finish(self, future: asyncio.Future[Any], error: BaseException | None, result: Any) -> None:
        self._active -= 1
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class InlineLane:
    """A lane that runs calls at once on the loop: for drivers that never block, in simulations and tests."""

    active = 0

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` now."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed to the waiter, as a thread would
            future.set_exception(error)
        return future
