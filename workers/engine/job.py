"""A job under way: the call of a long verb, which tells how far it has come, and which a cancel can have given up.

Both go past the call, in lanes of their own, so neither waits behind what it is about. Nothing is told of a job any more once
its command has ended, though the call may still run: what becomes of it then is `command.settled`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from orchestrator.log import get_logger
from orchestrator.protocol.verb import Verb
from workers.drivers.port import DriverError, JobProgress, Rejected
from workers.engine.hypervisor import Hypervisor
from workers.engine.lane import done_within
from workers.engine.notice import about
from workers.engine.order import Order
from workers.engine.outbox import Outbox
from workers.journal.port import Begun, Position

PACE_S = 0.5
"""Seconds between two events that tell of a job's progress, at least."""

RETRY_S = 0.2
"""Seconds until a job is asked for again that the hypervisor did not know yet."""

AGAIN_S = 2.0
"""Seconds after which a job that should be given up, and goes on, is told so again."""

READ_S = 30.0
"""Seconds that a hypervisor has to tell whether a job runs."""

log = get_logger()


class Job:
    """The job of one command. `by` is the id of the first cancel that wants it given up."""

    def __init__(self, outbox: Outbox, order: Order, verb: Verb, name: str | None, judged: Callable[[], Awaitable[None]]) -> None:
        """`name` is the domain's. `judged` has the cancels looked at that wait for this job."""
        entry = order.entry
        self.by: str | None = None
        self._outbox = outbox
        self._entry = entry
        self._notice = order.notice
        self._verb = verb
        self._name = name
        self._judged = judged
        self._wanted = anyio.Event()
        self._unstoppable = not verb.abortable
        self._told = Position("", 0)

    async def begin(self) -> None:
        """Commit that it has begun, and tell that it was accepted and has. Raises `JournalFull`."""
        entry, self._notice.runs = self._entry, True
        await self._outbox.tell(self._notice.due(entry, self._name), before=[Begun(entry.project, entry.id)])

    def abort(self, by: str) -> bool:
        """Have it given up for the cancel `by`; False if it cannot be. What comes of it, its command's end tells."""
        if self._unstoppable:
            return False
        self.by = self.by or by
        self._wanted.set()
        return True

    @asynccontextmanager
    async def followed(self, hypervisor: Hypervisor) -> AsyncIterator[None]:
        """Tell its progress, and give it up when that is wanted, for as long as the context lasts. Raises `JournalFull`, grouped."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, hypervisor)
            tasks.start_soon(self._give_up, hypervisor)
            yield
            tasks.cancel_scope.cancel()

    async def over(self, hypervisor: Hypervisor, left_s: Callable[[], float]) -> bool:
        """Wait for the end of a job whose call nobody has any more; False if it still runs when nothing is left of its time."""
        while await self._read(hypervisor) is not None:
            if left_s() <= 0:
                return False
            await anyio.sleep(PACE_S)
        return True

    async def _follow(self, hypervisor: Hypervisor) -> None:
        last = JobProgress()
        while True:
            await anyio.sleep(PACE_S)
            now = await self._read(hypervisor)
            if now is None or (now.total, now.processed, now.remaining) == (last.total, last.processed, last.remaining):
                continue
            if self._outbox.waiting and self._outbox.waiting[0].event.position <= self._told:
                continue  # the one before has not left yet: while the broker is away they would pile up
            last = now
            self._told = Position(self._outbox.epoch, self._outbox.next_sequence)
            with anyio.CancelScope(shield=True):
                await self._outbox.tell([about(self._entry, "command.progress", _told(now), name=self._name)])

    async def _give_up(self, hypervisor: Hypervisor) -> None:
        await self._wanted.wait()
        while True:
            error = await _raised(hypervisor.lanes.short.submit(lambda: hypervisor.driver.abort(self._entry.uuid)))
            if error is not None and not isinstance(error, Rejected):
                break
            # Refused is what the hypervisor has not begun, or has just ended; then the call returns by itself.
            await anyio.sleep(AGAIN_S if error is None else RETRY_S)
        log.warning("job cannot be given up", id=self._entry.id, uuid=self._entry.uuid, reason=repr(error))
        self._unstoppable = True
        await self._judged()

    async def _read(self, hypervisor: Hypervisor) -> JobProgress | None:
        """Return how far the domain's job is, None where none runs or nobody tells."""
        call = hypervisor.reads.submit(lambda: hypervisor.driver.progress(self._entry.uuid))
        error = await _raised(call, READ_S)
        if error is None:
            return call.result()
        log.info("job cannot be read", id=self._entry.id, uuid=self._entry.uuid, reason=repr(error))
        return None


async def _raised(call: asyncio.Future[Any], seconds: float | None = None) -> BaseException | None:
    """Wait for a call; return what it raised. One that takes longer than `seconds` is left alone."""
    if seconds is None:
        await asyncio.wait([call])
    else:
        await done_within(call, seconds)
    return call.exception() if call.done() else DriverError(f"no answer within {seconds:g} s")


def _told(progress: JobProgress) -> dict[str, Any]:
    """Return progress as events have it; percent of what is to be sent in all, which may grow."""
    done = max(0, progress.total - progress.remaining)
    return {
        "percent": round(100 * done / progress.total, 1) if progress.total else 0.0,
        "processed": progress.processed,
        "total": progress.total,
        "remaining": progress.remaining,
        "unit": "bytes",
        "elapsed_ms": progress.elapsed_ms,
    }
