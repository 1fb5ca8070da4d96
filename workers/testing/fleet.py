"""A whole fleet in one process, on adapters in memory: broker, coordinators, workers with fake hypervisors, a client.

    async with Fleet(nodes=3, seed=7) as fleet:
        await fleet.client.create_xml("web1", DOMAIN_XML)
        await fleet.events.expect("lifecycle.started", domain="web1")
        await fleet.nodes["n1"].crash()

On a `VirtualLoop` all its time is virtual, and everything that happens in it follows from the seed and from what the
program does: the same again gives the same events, ids and times, byte for byte. On other loops it runs in real time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from orchestrator.bus.logs import buckets, logs
from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Message, Start
from orchestrator.client import Client
from orchestrator.engine.pace import Pace
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.token import DEFAULT_PROJECT
from workers.testing.events import Events
from workers.testing.hypervisor import FakeHypervisor
from workers.testing.loop import wall_clock
from workers.testing.part import Ground, Node, Seat

DOMAIN_XML = "<domain type='test'><memory>65536</memory><os><type>hvm</type></os></domain>"
"""The smallest domain that a fake hypervisor starts; its name comes from the command."""

SUBJECTS = Subjects()


class Fleet:
    """A fleet while it is entered: all its workers are online, and its coordinators know them.

    nodes: how many (`n1`, `n2`, …), or the hypervisor of each by the node's name. coordinators: how many (`c1`, …).
    broker: one that is there already, else its own. seed: of all chance. pace: of coordinators. project: that the client means.

    client: to speak to it. events: to wait for what it tells. nodes, coordinators: its parts by name, each of which can be
    stopped, killed and started again. broker: whose connections can be cut (`fleet.broker.cut(fleet.nodes["n1"].bus)`).
    """

    client: Client
    events: Events

    def __init__(
        self,
        nodes: int | Mapping[str, FakeHypervisor] = 2,
        *,
        coordinators: int = 1,
        broker: MemoryBroker | None = None,
        seed: int = 0,
        pace: Pace | None = None,
        project: str = DEFAULT_PROJECT,
    ) -> None:
        hypervisors = {f"n{number}": FakeHypervisor() for number in range(1, nodes + 1)} if isinstance(nodes, int) else nodes
        self.broker = broker or MemoryBroker(wall_clock())
        self._seed = seed
        self._project = project
        self._clock = wall_clock()
        self.nodes = {name: Node(self._ground(name), hypervisor) for name, hypervisor in hypervisors.items()}
        names = [f"c{number}" for number in range(1, coordinators + 1)]
        self.coordinators = {name: Seat(self._ground(name), pace or Pace()) for name in names}
        self._running: AbstractAsyncContextManager[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        assert self._running is not None  # noqa: S101 - entered before
        if isinstance(error, Exception):
            # It is the program's own, and leaves as it came, in no group.
            kind = error = trace = None
        return await self._running.__aexit__(kind, error, trace)

    def bus(self, name: str) -> MemoryBus:
        """Return another connection to the broker, not yet entered: for a client or worker of one's own."""
        return MemoryBus(self.broker, name=name, clock=self._clock)

    async def stored(self) -> list[Message]:
        """Return the messages of the event log: with a seed and a program of its own, the fleet's trace."""
        async with self.bus("trace") as bus:
            await bus.link.up()
            reader = await bus.reader(SUBJECTS.log_evt, "trace", SUBJECTS.events, Start())
            return await reader.take(max(reader.pending, 1))

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        await provision(self.broker, self._clock)
        chance = self._chance("client")
        async with self.bus("client") as bus, anyio.create_task_group() as tasks:
            await bus.link.up()
            self.client = Client(
                bus, SUBJECTS, project=self._project, new_id=lambda: chance(12).hex(), monotonic=asyncio.get_running_loop().time
            )
            self.events = Events(self.client.events(every=True, after=0))
            tasks.start_soon(self.events.follow)
            try:
                # Workers first: who coordinates knows from the start all who are there.
                await _start(tasks, [*self.nodes.values(), *self.coordinators.values()])
                yield
            finally:
                for node in self.nodes.values():
                    node.hypervisor.settle()
                tasks.cancel_scope.cancel()

    def _ground(self, name: str) -> Ground:
        return Ground(name=name, subjects=SUBJECTS, broker=self.broker, clock=self._clock, randomness=self._chance(name))

    def _chance(self, name: str) -> Callable[[int], bytes]:
        """Return the chance of one part: what another draws does not change it."""
        return random.Random(f"{self._seed}/{name}").randbytes  # noqa: S311 - to be repeated, not to be secret


async def provision(broker: MemoryBroker, clock: Callable[[], float]) -> None:
    """Make the logs and buckets of an installation."""
    async with MemoryBus(broker, name="provision", clock=clock) as bus:
        await bus.link.up()
        await bus.provision([*logs(SUBJECTS, created=clock()), *buckets(SUBJECTS)])


async def _start(tasks: TaskGroup, parts: Iterable[Node | Seat]) -> None:
    for part in parts:
        await part.begin(tasks)
