"""Threads for calls that block, and perhaps for ever.

A lane has a bounded number of daemon threads that drain one queue: several calls cost one wake-up, an idle lane costs
nothing, and a thread that hangs in libvirt keeps neither the loop nor the process. Short calls, long jobs and reads
each have a lane, so that an abort is never stuck behind what it should abort. Calls cannot be cancelled, only left.
A thread that hangs is replaced, up to a number of spare ones; once all those hang too, the lane is `full` and says so at once.
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
from itertools import islice
from typing import Any, Protocol, TypeVar

import anyio
import msgspec

T = TypeVar("T")

PATIENCE_S = 0.005
"""Seconds for which a call waits for a busy thread before another one is started: threads that contend for short calls
cost more than they win, and one that hangs must hold up nobody."""

HUNG_S = 5.0
"""Seconds after which a call is taken to hang: its thread is replaced, if there are spare ones."""

RELIEF_S = 0.25
"""Seconds between two looks for threads that hang, while calls wait and all threads are taken."""


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
        """Calls that run at once, those that hang not counted; more wait their turn."""

    @property
    def spare(self) -> int:
        """Calls that may hang and have their threads replaced."""

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""

    @property
    def full(self) -> bool:
        """Whether as many calls hang as may: what is submitted now waits until one of them returns."""

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread; the future has its result or exception. Abandoning the future leaves the call running."""

    def withdraw(self, future: asyncio.Future[Any]) -> bool:
        """Take back a call that no thread has begun: it is never made, and its future is cancelled. False if one has begun it."""

    def drop(self) -> None:
        """Cancel the calls that have not begun."""

    async def close(self, within_s: float) -> int:
        """Drop, and end the threads, for good; return how many still hang in a call after `within_s` seconds."""


class Lanes(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker's calls run. short: commands. long: jobs of minutes. reads: of single domains. disk: opening and closing the journal.

    upkeep: opening, scanning and proving hypervisors, whose threads no number of domains that hang can take; None: with the reads.
    """

    short: Lane
    long: Lane
    reads: Lane
    disk: Lane
    upkeep: Lane | None = None

    @property
    def supervision(self) -> Lane:
        """Where hypervisors are opened, scanned and proved."""
        return self.upkeep or self.reads

    @classmethod
    def threads(cls) -> Lanes:
        """Return lanes of threads of their own."""
        return cls(
            short=ThreadLane("short", 32, spare=32),
            long=ThreadLane("long", 16),
            reads=ThreadLane("reads", 16, spare=16),
            disk=ThreadLane("disk", 1),
            upkeep=ThreadLane("upkeep", 64),
        )

    @classmethod
    def inline(cls) -> Lanes:
        """Return lanes without threads: for drivers and journals that never block, in simulations and tests."""
        lane = InlineLane()
        return cls(short=lane, long=lane, reads=lane, disk=lane)

    def drop(self) -> None:
        """Cancel the calls into hypervisors that have not begun."""
        for lane in (self.short, self.long, self.reads, self.supervision):
            lane.drop()

    async def close(self, within_s: float) -> int:
        """Close all; return how many threads still hang in a call after `within_s` seconds."""
        lanes = (self.disk, self.short, self.long, self.reads, self.supervision)
        closing = [asyncio.ensure_future(lane.close(within_s)) for lane in dict.fromkeys(lanes)]
        return sum(await asyncio.gather(*closing))


class _Job(msgspec.Struct):
    """claim: taken by the thread that makes the call, or by who takes it back. begun: when that thread did."""

    call: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    since: float
    claim: threading.Lock
    begun: float | None = None


class ThreadLane:
    """A lane of real threads, started as they are needed, up to `limit`, and `spare` further ones for those that hang."""

    def __init__(self, name: str, limit: int, *, spare: int = 0) -> None:
        self._name = name
        self._limit = limit
        self._spare = spare
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._most = limit
        self._calls: dict[asyncio.Future[Any], _Job] = {}
        self._reached = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._over: Callable[[], object] | None = None

    @property
    def limit(self) -> int:
        """Threads at most, those that hang not counted."""
        return self._limit

    @property
    def spare(self) -> int:
        """Threads at most that replace such as hang."""
        return self._spare

    @property
    def active(self) -> int:
        """Calls submitted and not yet returned."""
        return len(self._calls)

    @property
    def full(self) -> bool:
        """Whether all threads hang, the spare ones too; without spare ones nothing is taken to hang."""
        most = self._limit + self._spare
        return self._spare > 0 and len(self._calls) >= most and self._hung() >= most

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` in a thread; more than the lane's limit wait their turn. Raises `RuntimeError` once closed."""
        if self._over is not None:
            raise RuntimeError(f"lane {self._name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = self._calls[future] = _Job(call, future, loop, time.monotonic(), threading.Lock())
        self._jobs.put(job)
        if not self._threads:
            self._grow()
        else:
            self._look_out(loop)
        return future

    def withdraw(self, future: asyncio.Future[Any]) -> bool:
        """Take back a call that no thread has begun."""
        job = self._calls.get(future)
        if job is None or not job.claim.acquire(blocking=False):
            return False
        del self._calls[future]
        future.cancel()
        return True

    def drop(self) -> None:
        """Cancel the calls that have not begun."""
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    self.withdraw(job.future)

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
        if len(self._threads) >= self._most:
            self._replace()
        if time.monotonic() - self._reached > PATIENCE_S and len(self._threads) < self._most:
            self._grow()
        self._look_out(loop)

    def _look_out(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that calls that wait for long get a thread, if there may be another one."""
        if self._watch is None and len(self._threads) < self._limit + self._spare:
            self._watch = loop.call_later(PATIENCE_S if len(self._threads) < self._limit else RELIEF_S, self._check, loop)

    def _replace(self) -> None:
        """Say how many threads there may be: one more for each that hangs, as far as there are spare ones."""
        self._most = self._limit + min(self._spare, self._hung())

    def _hung(self) -> int:
        """Count the calls that hang. Calls begin in the order in which they came, so they are among the first."""
        since = time.monotonic() - HUNG_S
        first = list(islice(self._calls.values(), self._limit + self._spare))
        return sum(job.begun is not None and job.begun < since for job in first)

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
            if not job.claim.acquire(blocking=False):
                continue
            self._reached, job.begun = job.since, time.monotonic()
            try:
                result = job.call()
            except BaseException as error:  # noqa: BLE001 - the root of this thread; the waiter gets whatever it was
                self._report(job, error, None)
            else:
                self._report(job, None, result)
        self._leave()

    def _rests(self) -> bool:
        """Tell whether this thread shall wait for the next call: one that waits is enough, the others end, as do those too many."""
        with self._lock:
            if self._over is None and (self._idle or len(self._threads) > self._most):
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
        job = self._calls.pop(future)
        if len(self._threads) > self._limit and job.begun is not None and job.begun < time.monotonic() - HUNG_S:
            self._replace()
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class InlineLane:
    """A lane that runs calls at once on the loop: for drivers that never block, in simulations and tests."""

    limit = 1
    spare = 0
    active = 0
    full = False

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` now."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed to the waiter, as a thread would
            future.set_exception(error)
        return future

    def withdraw(self, future: asyncio.Future[Any]) -> bool:  # noqa: ARG002 - whichever it is
        """Return False: it has run."""
        return False

    def drop(self) -> None:
        """Do nothing: what was submitted has run."""

    async def close(self, within_s: float) -> int:  # noqa: ARG002 - there is nothing to wait for
        """Return 0: nothing hangs, or this could not be called."""
        return 0
