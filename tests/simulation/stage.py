"""The parts of the system as processes that can be stopped, cut off and killed one by one, each with a clock and weather of its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from anyio.abc import TaskGroup, TaskStatus

from orchestrator.bus.memory import MemoryBus
from orchestrator.bus.port import Message
from orchestrator.protocol.verb import Args, NoArgs, XmlArgs
from tests.simulation.loop import PART
from tests.simulation.witness import Witness, WitnessedDisk
from workers.drivers.jobs import Job
from workers.drivers.port import Ability, Happening, Listener, Lost, Tag
from workers.testing.hypervisor import FakeHypervisor, Hang
from workers.testing.part import Ground, Node, Part, Seat

TWICE = (".dlv.", ".res.", ".evt.")
"""What a broker may bring twice: pushes and results, around a reconnect of whoever sent them."""


class ChanceWeather:
    """What a part's connection does to messages.

    latest_s: the longest delay. loss, twice: how likely a core message is lost, or doubled.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.usual_s = chance.choice((0.0, 0.0, 0.0005, 0.003))
        self.latest_s = self.usual_s
        self.loss = self.twice = 0.0

    def storm(self, latest_s: float, loss: float, twice: float) -> None:
        """Let it be bad from now on."""
        self.latest_s, self.loss, self.twice = latest_s, loss, twice

    def calm(self) -> None:
        """Let it be as usual."""
        self.storm(self.usual_s, 0.0, 0.0)

    def delay_s(self) -> float:
        """Return how long a message is on its way."""
        return self._chance.random() * self.latest_s if self.latest_s else 0.0

    def copies(self, message: Message) -> int:
        """Return how often a core message arrives."""
        drawn = self._chance.random() if self.loss or self.twice else 1.0
        if drawn < self.loss:
            return 0
        return 2 if drawn < self.loss + self.twice and any(kind in message.subject for kind in TWICE) else 1


class JumpingClock:
    """A node's wall clock, which somebody may set wrong."""

    def __init__(self, right: Callable[[], float]) -> None:
        self._right = right
        self.wrong_s = 0.0

    def __call__(self) -> float:
        """Return Unix seconds as this node believes them."""
        return self._right() + self.wrong_s


class WitnessedHypervisor(FakeHypervisor):
    """A hypervisor whose effects are seen. A dead process's calls have none."""

    def __init__(self, node: str, witness: Witness) -> None:
        super().__init__(f"memory:///{node}")
        self._node = node
        self._witness = witness
        self._asked = threading.local()
        self._alive = True
        self._ambush: Hang | None = None
        self._home = copy_context()
        self._home.run(PART.set, node)

    def die(self) -> None:
        """Let the process that uses it die; calls that hang go with it."""
        self._alive = False
        self.close()
        self.settle()
        self.release_events()

    def ambush(self, *, after: bool) -> Hang:
        """Make the next verb hang, whichever it is, before or after its effect."""
        self._ambush = self.faults.hang("ambush", after=after)
        return self._ambush

    def revive(self) -> None:
        """Let another process use it."""
        self._alive = True

    def open(self, listener: Listener) -> Ability:
        """Connect. Raises `Lost`."""
        if not self._alive:
            raise Lost("this process is dead")
        return super().open(listener)

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Carry out a verb."""
        self._asked.what = verb, uuid
        if self._ambush is not None:
            self._ambush.step, self._ambush = verb, None
        try:
            super().run(verb, uuid, args, tag)
        finally:
            self._asked.what = None

    def meddle(self, act: str, uuid: str) -> None:
        """Let somebody else do something to a domain."""
        domain, machine = self.machine.domains[uuid], self.machine
        if act in ("power_off", "crash"):
            getattr(machine, act)(uuid)
        else:
            getattr(machine, act)(uuid, NoArgs(), domain.tag)

    def invent(self, uuid: str) -> None:
        """Let somebody else define a domain."""
        xml = f"<domain type='test'><name>odd-{uuid[-6:]}</name><uuid>{uuid}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"
        self.machine.define(uuid, XmlArgs(xml=xml), Tag(project="default"))

    def _emit(self, happening: Happening) -> None:
        """Tell it as work of the node, whoever caused it."""
        self._home.copy().run(super()._emit, happening)

    @contextmanager
    def _call(self, step: str, job: Job | None = None) -> Iterator[None]:
        with super()._call(step, job):
            yield
            asked = getattr(self._asked, "what", None)
            if asked is not None:
                self._witness.effect(self._node, asked[0], step, asked[1])


class Process(Part):
    """A part as a process of its own: with weather, perhaps cut off (`parted`) however often it connects, and quick to die."""

    def __init__(self, ground: Ground, weather: ChanceWeather, witness: Witness, **rest: Any) -> None:
        self.weather = weather
        self.witness = witness
        self.parted = False
        super().__init__(ground, **rest)

    def _connection(self) -> MemoryBus:
        bus = super()._connection()
        bus.link.weather = self.weather
        if self.parted:
            self.ground.broker.cut(bus)
        return bus

    def enlist(self, tasks: TaskGroup) -> None:
        """Have it run in `tasks` once it is started."""
        self._tasks = tasks

    def die(self) -> None:
        """Let nothing that it still does have an effect."""
        self._die()

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        """Run; what is raised in the last moments of a process that is killed concerns nobody."""
        try:
            await super()._run(task_status=task_status)
        except Exception:
            if self.name not in self.witness.dying:
                raise


class SimulatedNode(Process, Node):
    """A worker as a process."""

    def __init__(self, ground: Ground, weather: ChanceWeather, witness: Witness, clock: JumpingClock) -> None:
        self.clock = clock
        self.fake = WitnessedHypervisor(ground.name, witness)
        super().__init__(ground, weather, witness, hypervisor=self.fake)
        self.disk = WitnessedDisk(ground.name, witness)
        witness.ledger.machines[ground.name] = self.fake.machine

    async def start(self) -> None:
        """Start it again."""
        self.fake.revive()
        await super().start()

    def _die(self) -> None:
        super()._die()
        self.fake.die()


class SimulatedSeat(Process, Seat):
    """A coordinator as a process."""
