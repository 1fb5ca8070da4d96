"""Threads for calls that block, and perhaps for ever.

A lane has a bounded number of daemon threads that drain one queue: several calls cost one wake-up, an idle lane costs
nothing, and a thread that hangs in libvirt keeps neither the loop nor the process. Short calls, long jobs and reads
each have a lane, so that an abort is never stuck behind what it should abort. Calls cannot be cancelled, only left.
A lane that is closed ends its threads; one that hangs is left behind, and ends when its call returns.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
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
    def limit(self) -> int:
        """Calls that run at once; more wait their turn."""

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread; the future has its result or exception. Abandoning the future leaves the call running."""

    def drop(self) -> None:
        """Cancel the calls that have not begun."""

    async def close(self, within_s: float) -> int:
        """Drop, and end the threads, for good; return how many still hang in a call after `within_s` seconds."""


class Lanes(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker's calls run. short: commands. long: jobs of minutes. reads: looks. disk: opening and closing the journal, in order."""

    short: Lane
    long: Lane
    reads: Lane
    disk: Lane

    @classmethod
    def threads(cls) -> Lanes:
        """Return lanes of threads of their own."""
        return cls(short=ThreadLane("short", 32), long=ThreadLane("long", 16), reads=ThreadLane("reads", 16), disk=ThreadLane("disk", 1))

    @classmethod
    def inline(cls) -> Lanes:
        """Return lanes without threads: for drivers and journals that never block, in simulations and tests."""
        lane = InlineLane()
        return cls(short=lane, long=lane, reads=lane, disk=lane)

    def drop(self) -> None:
        """Cancel the calls into hypervisors that have not begun."""
        for lane in (self.short, self.long, self.reads):
            lane.drop()

    async def close(self, within_s: float) -> int:
        """Close all; return how many threads still hang in a call after `within_s` seconds."""
        closing = [asyncio.ensure_future(lane.close(within_s)) for lane in (self.disk, self.short, self.long, self.reads)]
        return sum(await asyncio.gather(*closing))


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
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._active = 0
        self._reached = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._over: Callable[[], object] | None = None

    @property
    def limit(self) -> int:
        """Threads at most."""
        return self._limit

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""
        return self._active

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread; more than the lane's limit wait their turn. Raises `RuntimeError` once closed."""
        if self._over is not None:
            raise RuntimeError(f"lane {self._name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._active += 1
        self._jobs.put(_Job(call, future, loop, time.monotonic()))
        if not self._threads:
            self._grow()
        elif self._watch is None and len(self._threads) < self._limit:
            self._watch = loop.call_later(PATIENCE_S, self._check, loop)
        return future

    def drop(self) -> None:
        """Cancel the calls that have not begun."""
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    self._active -= 1
                    job.future.cancel()

    async def close(self, within_s: float) -> int:
        """Drop, and end the threads: idle ones at once, others when their call returns. Return how many still hang after `within_s`."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        self.drop()
        if self._watch is not None:
            self._watch.cancel()
        with self._lock:
            self._over = partial(loop.call_soon_threadsafe, over.set)
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        if threads:
            with anyio.move_on_after(within_s):
                await over.wait()
        with self._lock:
            hung = len(self._threads)
        for thread in threads:
            if not hung:
                thread.join()  # it has nothing left to do
        return hung

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a thread if the calls that wait have waited for long."""
        self._watch = None
        if self._jobs.empty():
            return
        if time.monotonic() - self._reached > PATIENCE_S:
            self._grow()
        if len(self._threads) < self._limit:
            self._watch = loop.call_later(PATIENCE_S, self._check, loop)

    def _grow(self) -> None:
        thread = threading.Thread(target=self._drain, name=f"{self._name}-{len(self._threads) + 1}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _drain(self) -> None:
        while self._rests():
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                break
            self._reached = job.since
            try:
                result = job.call()
            except BaseException as error:  # noqa: BLE001 - the root of this thread; the waiter gets whatever it was
                self._report(job, error, None)
            else:
                self._report(job, None, result)
        self._leave()

    def _rests(self) -> bool:
        """Tell whether this thread shall wait for the next call: one that waits is enough, the others end."""
        with self._lock:
            if self._idle and self._over is None:
                self._threads.discard(threading.current_thread())
                return False
            self._idle += 1
            return True

    def _leave(self) -> None:
        with self._lock:
            self._threads.discard(threading.current_thread())
            last = self._over if not self._threads else None
        if last is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                last()

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

    limit = 1
    active = 0

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` now."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed to the waiter, as a thread would
            future.set_exception(error)
        return future

    def drop(self) -> None:
        """Do nothing: what was submitted has run."""

    async def close(self, within_s: float) -> int:  # noqa: ARG002 - there is nothing to wait for
        """Return 0: nothing hangs, or this could not be called."""
        return 0
