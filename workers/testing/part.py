"""The parts of a fleet that can die: workers and coordinators, as processes of their own would."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.engine.coordinator import Coordinator
from orchestrator.engine.pace import Pace
from orchestrator.protocol.subject import Subjects
from workers.journal.memory import MemoryDisk, MemoryJournal
from workers.testing.hypervisor import FakeHypervisor
from workers.worker import Worker

VERSION = "0.0.0"


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What a part stands on. randomness: gives so many random bytes."""

    name: str
    subjects: Subjects
    broker: MemoryBroker
    clock: Callable[[], float]
    randomness: Callable[[int], bytes]


class Part(ABC):
    """Something that runs in a fleet. `bus` is its connection, a new one each time it starts."""

    def __init__(self, ground: Ground) -> None:
        self.name = ground.name
        self.ground = ground
        self.bus = self._connection()
        self._tasks: TaskGroup | None = None
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._ended.set()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return not self._ended.is_set()

    async def begin(self, tasks: TaskGroup) -> None:
        """Run in `tasks` from now on; return once it is ready."""
        self._tasks = tasks
        await self.start()

    async def start(self) -> None:
        """Start it again after `stop` or `crash`; return once it is ready."""
        assert self._tasks is not None  # noqa: S101 - the fleet has begun it
        self.bus = self._connection()
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        await self._tasks.start(self._run)

    async def stop(self) -> None:
        """End it as a signal does: what it has begun it finishes."""
        await self._quiesce()
        await self._end()

    async def crash(self) -> None:
        """End it as kill -9 does: nothing that it does on its way out has an effect."""
        self.ground.broker.cut(self.bus)
        self._die()
        await self._end()

    async def _end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        try:
            with self._scope:
                async with self.bus, anyio.create_task_group() as tasks:
                    await self.bus.link.up()
                    await tasks.start(self._serve)
                    task_status.started()
        finally:
            self._ended.set()

    def _connection(self) -> MemoryBus:
        return MemoryBus(self.ground.broker, name=self.ground.name, clock=self.ground.clock)

    @abstractmethod
    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        """Run until cancelled."""

    @abstractmethod
    async def _quiesce(self) -> None:
        """Finish what has begun."""

    @abstractmethod
    def _die(self) -> None:
        """Let what is committed from now on be lost."""


class Node(Part):
    """A worker, its fake hypervisor, and the disk with its journal; the last two outlive it."""

    def __init__(self, ground: Ground, hypervisor: FakeHypervisor) -> None:
        super().__init__(ground)
        self.hypervisor = hypervisor
        self.disk = MemoryDisk()
        self._worker: Worker | None = None

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        ground = self.ground
        worker = Worker(
            self.bus,
            node=self.name,
            hypervisors=[self.hypervisor],
            journal=MemoryJournal(self.disk),
            prefix=ground.subjects.prefix,
            version=VERSION,
            lanes=self.hypervisor.lanes(),
            clock=ground.clock,
            randomness=ground.randomness,
        )
        async with worker as self._worker:
            await worker.run(task_status=task_status)

    async def _quiesce(self) -> None:
        if self._worker is not None:
            await self._worker.quiesce()

    def _die(self) -> None:
        self.disk.crash()


class Seat(Part):
    """A coordinator."""

    def __init__(self, ground: Ground, pace: Pace) -> None:
        super().__init__(ground)
        self._pace = pace

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        ground = self.ground
        coordinator = Coordinator(
            self.bus,
            subjects=ground.subjects,
            name=self.name,
            version=VERSION,
            clock=ground.clock,
            monotonic=asyncio.get_running_loop().time,
            randomness=ground.randomness,
            pace=self._pace,
        )
        await coordinator.run(task_status=task_status)

    async def _quiesce(self) -> None:
        """Do nothing: what a coordinator has begun, another goes on with."""

    def _die(self) -> None:
        """Do nothing: it keeps nothing but what is in the broker."""
