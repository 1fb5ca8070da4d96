"""`Worker`: what runs commands on one node and tells its events; embed it, or start `virtbus worker`.

It sets up no signals, no logging and no event loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence

import anyio
from anyio.abc import TaskStatus

from orchestrator.bus.port import Bus
from orchestrator.protocol import token
from orchestrator.protocol.subject import Subjects
from workers.drivers.port import Driver
from workers.engine.assembly import Assembly, Settings
from workers.engine.lane import Lane, ThreadLane
from workers.journal.port import EpochBegun, Forgotten, Journal

KEEP_S = 24 * 3600.0
"""Seconds after its terminal event for which a command's outcome is remembered."""

FORGET_EVERY_S = 600.0
CLOSE_S = 0.5


class Worker:
    """One node's worker. Several may live in one process, each with its own journal, drivers and node name."""

    def __init__(
        self,
        bus: Bus,
        journal: Journal,
        drivers: Sequence[Driver],
        *,
        node: str,
        subjects: Subjects | None = None,
        default_project: str = token.DEFAULT_PROJECT,
        labels: Mapping[str, str] | None = None,
        version: str = "0.0.0",
        lanes: tuple[Lane, Lane, Lane] | None = None,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`bus` is entered by the caller; `journal` and `drivers` are opened and closed by `run`.

        lanes: where short calls, long jobs and reads run; threads of their own unless given. Raises `Invalid` for a
        node or project that is no token.
        """
        short, long, reads = lanes or (ThreadLane("short", 32), ThreadLane("long", 16), ThreadLane("reads", 16))
        self._settings = Settings(
            node=token.node(node),
            subjects=subjects or Subjects(),
            default_project=token.project(default_project),
            labels=dict(labels or {}),
            version=version,
            short=short,
            long=long,
            reads=reads,
            clock=clock,
            randomness=randomness,
        )
        self._bus = bus
        self._journal = journal
        self._drivers = list(drivers)
        self._assembly: Assembly | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once the node is online, scanned, and takes commands.

        Raises `Locked`, `JournalError`, `Taken` (another worker serves this node), `Superseded` (another took over).
        What is unfinished when it is cancelled goes on at the next start; domains stay as they are.
        """
        recovery = self._journal.open(self._settings.clock())
        try:
            epoch = self._new_epoch(recovery.epochs[-1] if recovery.epochs else None)
            await self._journal.commit(EpochBegun(epoch))
            self._assembly = Assembly(self._settings, self._bus, self._journal, self._drivers, recovery, epoch)
            async with anyio.create_task_group() as tasks:
                await self._assembly.start(tasks)
                task_status.started()
                await self._forget()
        finally:
            self._assembly = None
            self._journal.close()
            await self._close_drivers()

    async def quiesce(self) -> None:
        """Begin nothing more; return once what runs has ended and its events are in the log. Then cancel `run`."""
        if self._assembly is not None:
            await self._assembly.quiesce()

    async def _close_drivers(self) -> None:
        """Close what closes in time: a hypervisor that hangs does not hold up the end."""
        with anyio.CancelScope(shield=True):
            calls = {self._settings.reads.submit(driver.close) for driver in self._drivers}
            if calls:
                await asyncio.wait(calls, timeout=CLOSE_S)

    def _new_epoch(self, last: str | None) -> str:
        """Return a ULID later than all before it, also when the clock went back."""
        now = int(self._settings.clock() * 1000)
        return token.ulid(max(now, token.ulid_milliseconds(last) + 1) if last else now, self._settings.randomness(10))

    async def _forget(self) -> None:
        while True:
            await self._journal.commit(Forgotten(self._settings.clock() - KEEP_S))
            await anyio.sleep(FORGET_EVERY_S)
