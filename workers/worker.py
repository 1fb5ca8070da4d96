"""`Worker`: what runs commands on one node and tells its events; embed it, or start `virtbus worker`.

    async with Worker("nats://127.0.0.1:4222", node="n1", hypervisors=["qemu:///system"], data_dir="/var/lib/mine") as worker:
        async with anyio.create_task_group() as tasks:
            await tasks.start(worker.run)         # or asyncio: tasks.create_task(worker.run()), then await worker.ready()
            ...

It lives in the program's own loop, under `asyncio.run` or anyio on asyncio, and sets up no signals, no logging, no loop policy
and no garbage collection. Several live in one process, each with its own node name, journal and hypervisors. Cancelled at any
moment and left, it leaves nothing behind: no task, no descriptor, and of threads only one that hangs in a hypervisor's call (a
daemon; it is logged, and ends with the call) and libvirt's event loop: one a process, begun with the first libvirt connection,
and ended by nothing but the process. A program that runs that loop itself says so before:
`workers.drivers.libvirt.events_run_elsewhere()`.
What was unfinished goes on at the next start with the same journal: what had begun is settled by looking, the rest is begun.

`only` limits what it serves: `project=NAME` (several: any of these) and `label=NAME=VALUE` (several: all of these), as the
domain's metadata has them. A domain outside is neither told nor touched; commands for it, and all commands of other projects, end
as `not_found`, and creating one with its UUID as `already_exists`. One that leaves (its metadata changed, or `only` did) is told
once more, as `state.changed` with role `former`, and its state key goes. Of what came and went before anybody could look, and by
no command, nothing is told. A worker with labels gives them to what it creates, so a new domain comes there only if its sender
names the node.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import entry_points
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Self, cast

import anyio
import msgspec
from anyio.abc import TaskStatus

from orchestrator.bus.port import Bus, Unavailable
from orchestrator.log import get_logger
from orchestrator.protocol import extension, token
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import VERBS
from workers.domain.scope import read_scope
from workers.drivers.port import Driver
from workers.drivers.registry import driver_for
from workers.engine.assembly import Assembly, Settings
from workers.engine.held import HeldDriver
from workers.engine.hooks import Hooks, OnCommand, OnEvent
from workers.engine.lane import Lanes
from workers.engine.rebuild import Past, Rebuild
from workers.journal.port import EpochBegun, Forgotten, Journal, Recovery
from workers.journal.sqlite import SqliteJournal

KEEP_S = 24 * 3600.0
"""Seconds after its terminal event for which a command's outcome is remembered."""

FORGET_EVERY_S = 600.0

CLOSE_S = 0.5
"""Seconds that hypervisors have to close, and after that calls under way to return, before they are left behind."""

log = get_logger()


class Worker:
    """One node's worker. Enter it, then let `run` run, once."""

    def __init__(
        self,
        server: str | Bus | Any,
        *,
        node: str,
        hypervisors: Sequence[str | Driver],
        data_dir: Path | str | None = None,
        journal: Journal | None = None,
        project: str = token.DEFAULT_PROJECT,
        only: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        prefix: str = "virt",
        creds: Path | str | None = None,
        wait: bool = False,
        durable: bool = False,
        rebuild: bool = False,
        on_event: OnEvent | None = None,
        on_command: OnCommand | None = None,
        version: str | None = None,
        lanes: Lanes | None = None,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Say what it is; nothing is opened yet.

        server: the broker's URL; or a bus that the caller has entered, or a `nats.aio.client.Client` that the caller has connected: these
        stay open. hypervisors: URIs, each for the driver of its scheme (`drivers.registry`), or drivers; closed in the end.
        data_dir: where its journal is, made if need be; `durable`: synced to the disk at each commit; `rebuild`: put aside if it is
        damaged, and what it knew rebuilt from the logs, as is done for one that is missing. Or `journal`, not yet open.
        project: of domains that bear none. only: see above. labels: of the node. prefix: first token of all subjects.
        creds: a NATS credentials file. wait: keep trying while the broker is away at the start. on_event, on_command: see `engine.hooks`.
        lanes: where calls that block run, taken over and closed in the end; threads of their own unless given.
        Raises `Invalid` for what is malformed and for a broken extension, `Unsupported` where libvirt-python is needed and missing.
        """
        if (data_dir is None) == (journal is None):
            raise Invalid("a worker needs data_dir, to keep its journal in, or a journal")
        extension.enlist(entry_points(group=extension.GROUP))
        self._server = server
        self._creds = Path(creds) if creds is not None else None
        self._wait = wait
        self._journal = journal or SqliteJournal(Path(data_dir or "") / "journal.db", durable=durable, rebuild=rebuild)
        self._drivers = [driver_for(one) if isinstance(one, str) else one for one in hypervisors]
        if len({driver.uri for driver in self._drivers}) < len(self._drivers):
            raise Invalid("hypervisors: a URI is given twice; name each hypervisor once")
        self._settings = Settings(
            node=token.node(node),
            subjects=Subjects(prefix),
            scope=read_scope(only, project),
            labels=dict(labels or {}),
            version=version if version is not None else version_of("virtbus"),
            lanes=lanes or Lanes.threads(),
            hooks=Hooks(on_event, on_command),
            clock=clock,
            randomness=randomness,
        )
        self._stack = AsyncExitStack()
        self._bus: Bus
        self._recovery: Recovery | None = None
        self._assembly: Assembly | None = None
        self._running: anyio.CancelScope | None = None
        self._ready = asyncio.Event()
        self._over = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Open the journal and reach the broker. Raises `Locked`, `JournalError`, `BusError` (the broker is away and `wait` is False)."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_lanes)
            stack.push_async_callback(self._close_journal)
            self._recovery = await self._settings.lanes.disk.submit(lambda: self._journal.open(self._settings.clock()))
            self._bus = await self._reached(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Cancel `run` if it still runs, wait for its end, and close all that was opened."""
        self._recovery = None  # a `run` that has not come to its first step yet must not begin now
        if self._running is not None:
            self._running.cancel()
            with anyio.CancelScope(shield=True):
                await self._over.wait()
        await self._stack.aclose()  # each part shields itself: the bus brings a scope of its own, which must not end inside another

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once the node is online, scanned, and takes commands.

        Raises `JournalError`, `Taken` (another worker serves this node), `Superseded` (another took over).
        What is unfinished when it is cancelled goes on at the next start; domains stay as they are.
        """
        recovery, self._recovery = self._recovery, None
        if recovery is None:
            raise RuntimeError("a worker runs once, after it was entered; make another one")
        own = {name: verb for name, verb in VERBS.items() if verb.run is not None}
        drivers = [HeldDriver(driver, own) for driver in self._drivers]
        try:
            with anyio.CancelScope() as self._running:
                recovery, past = await self._caught_up(recovery)
                epoch = self._new_epoch(max([past.epoch, *recovery.epochs]))
                await self._journal.commit(EpochBegun(epoch))
                self._assembly = Assembly(self._settings, self._bus, self._journal, drivers, recovery, epoch)
                async with anyio.create_task_group() as tasks:
                    await self._assembly.start(tasks)
                    task_status.started()
                    self._ready.set()
                    await self._forget()
        finally:
            self._assembly = None
            self._settings.lanes.drop()
            await self._close_drivers(drivers)
            self._running = None
            self._over.set()
            self._ready.set()

    async def ready(self) -> None:
        """Wait until `run` takes commands. Raises `Unavailable` if it ended before."""
        await self._ready.wait()
        if self._over.is_set():
            raise Unavailable(f"worker {self._settings.node} has ended")

    async def quiesce(self) -> None:
        """Begin nothing more; return once what runs has ended and its events are in the log. Then cancel `run`."""
        if self._assembly is not None:
            await self._assembly.quiesce()

    async def _reached(self, stack: AsyncExitStack) -> Bus:
        if hasattr(self._server, "link"):
            return cast(Bus, self._server)
        from orchestrator.bus.reach import arrive, bus_at  # noqa: PLC0415  costs 0.2 s, and a worker given a bus does without

        bus = await stack.enter_async_context(bus_at(self._server, name=f"virtbus-worker-{self._settings.node}", creds=self._creds))
        await arrive(bus, wait=self._wait)
        return bus

    async def _close_journal(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._settings.lanes.disk.submit(self._journal.close)

    async def _close_lanes(self) -> None:
        with anyio.CancelScope(shield=True):
            hung = await self._settings.lanes.close(CLOSE_S)
        if hung:
            log.warning("worker.threads_left", node=self._settings.node, threads=hung, reason="calls into a hypervisor have not returned")

    async def _close_drivers(self, drivers: Sequence[HeldDriver]) -> None:
        """Close what closes in time: a hypervisor that hangs does not hold up the end."""
        with anyio.CancelScope(shield=True):
            for driver in drivers:
                driver.let_go()
            calls = {self._settings.lanes.reads.submit(driver.close) for driver in drivers}
            if calls:
                await asyncio.wait(calls, timeout=CLOSE_S)

    async def _caught_up(self, recovery: Recovery) -> tuple[Recovery, Past]:
        """Return what the journal holds once it lacks nothing that the logs tell of this node, and what they tell of earlier workers."""
        rebuild = Rebuild(self._bus, self._journal, self._settings.subjects, self._settings.node)
        past = await rebuild.past()
        if past.is_ahead_of(recovery):
            await rebuild.run(recovery, past)
            disk = self._settings.lanes.disk
            await disk.submit(self._journal.close)
            recovery = await disk.submit(lambda: self._journal.open(self._settings.clock()))
            recovery = msgspec.structs.replace(recovery, last=past.last)
        return recovery, past

    def _new_epoch(self, last: str) -> str:
        """Return a ULID later than all before it ("": none), also when the clock went back."""
        now = int(self._settings.clock() * 1000)
        return token.ulid(max(now, token.ulid_milliseconds(last) + 1) if last else now, self._settings.randomness(10))

    async def _forget(self) -> None:
        while True:
            ended_before = self._settings.clock() - KEEP_S
            await self._journal.commit(Forgotten(ended_before))
            if self._assembly is not None:
                self._assembly.forget(ended_before)
            await anyio.sleep(FORGET_EVERY_S)
