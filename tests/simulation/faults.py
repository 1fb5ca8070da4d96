"""What goes wrong, as it is done: each fault lasts as long as the plan says, or until all is healed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from orchestrator.bus.memory import MemoryBroker
from tests.simulation.clients import Sender
from tests.simulation.loop import PART, PartedLoop
from tests.simulation.plan import Fault, Meddling
from tests.simulation.stage import Process, SimulatedNode
from tests.simulation.witness import Witness
from workers.drivers.machine import Domain
from workers.drivers.port import Lost

TRUST_S = 8.0
"""Seconds after a jump or a pause in which a node's idea of the broker's time may be wrong: until it was told the next time."""

STEPS = ("create-xml", "start", "destroy", "suspend", "resume", "undefine", "set-autostart", "look", "scan", "mark", "free_memory_kib")
CALLS = ("create-xml", "define-xml", "start", "destroy", "suspend", "resume", "undefine", "set-autostart", "managed-save")

FITTING: dict[str, Callable[[Domain], bool]] = {
    "power_off": lambda domain: domain.instance is not None,
    "crash": lambda domain: domain.instance is not None,
    "start": lambda domain: domain.instance is None,
    "suspend": lambda domain: domain.state == "running",
    "resume": lambda domain: domain.state == "paused",
    "undefine": lambda domain: domain.persistent,
}
"""What somebody may do to a domain, and to which."""

Target = Process | Sender


class Mischief:
    """Does faults to a world."""

    def __init__(self, broker: MemoryBroker, loop: PartedLoop, witness: Witness, tasks: TaskGroup, clock: Callable[[], float]) -> None:
        self.parts: dict[str, Process] = {}
        self.senders: dict[str, Sender] = {}
        self.healed = anyio.Event()
        self.busy = 0
        """Faults that last, and parts that are being started."""
        self._broker = broker
        self._loop = loop
        self._witness = witness
        self._tasks = tasks
        self._clock = clock

    async def do(self, fault: Fault) -> None:
        """Let a fault happen, and end."""
        self.busy += 1
        self._witness.note(f"FAULT {fault.kind} of {fault.target} for {fault.seconds:.2f} s ({fault.number % 1000})")
        chance = random.Random(fault.number)
        target: Target | None = self.parts.get(fault.target) or self.senders.get(fault.target)
        if target is None:
            await self._restart_broker(fault)
        else:
            await self._deeds()[fault.kind](target, fault, chance)
        self._witness.note(f"END of {fault.kind} of {fault.target}")
        self.busy -= 1

    async def begin(self, part: Process) -> None:
        """Start a part, in a context that says so; return once it is ready or was killed before that."""
        self.busy += 1
        PART.set(part.name)
        self._witness.dying.discard(part.name)
        try:
            await part.start()
        except RuntimeError:
            if part.running or part.name not in self._witness.dying:
                raise
        finally:
            self.busy -= 1

    def meddle(self, meddling: Meddling) -> None:
        """Do something to a domain that nobody asked us for."""
        node = self.parts[meddling.node]
        assert isinstance(node, SimulatedNode)
        machine = node.fake.machine
        chance = random.Random(meddling.number)
        uuids = [uuid for uuid, domain in machine.domains.items() if meddling.act in FITTING and FITTING[meddling.act](domain)]
        if meddling.act == "define":
            uuid = f"ffffffff-0000-4000-8000-{meddling.number:012x}"
            self._witness.meddled(node.name, "define", uuid)
            node.fake.invent(uuid)
        elif uuids:
            uuid = chance.choice(uuids)
            self._witness.meddled(node.name, meddling.act, uuid)
            node.fake.meddle(meddling.act, uuid)

    async def heal(self) -> None:
        """End all faults; return when all parts run."""
        self.healed.set()
        self._broker.start()
        targets: list[Target] = [*self.parts.values(), *self.senders.values()]
        for part in targets:
            part.parted = False
            part.weather.calm()
            self._loop.spare(part.name)
            self._loop.resume(part.name)
            self._broker.restore(part.bus)

    # -- deeds

    def _deeds(self) -> dict[str, Callable[..., Awaitable[None]]]:
        return {
            "crash": self._crash,
            "doom": self._doom,
            "pause": self._pause,
            "cut": self._cut,
            "cut-on-answer": self._cut_on_answer,
            "linger": self._linger,
            "partition": self._partition,
            "storm": self._storm,
            "clock": self._jump,
            "refuse": self._refuse,
            "hang": self._hang,
            "lose": self._lose,
            "mute": self._mute,
            "blind": self._blind,
            "lost-answer": self._lost_answer,
            "strike": self._strike,
        }

    async def _lasts(self, fault: Fault) -> None:
        with anyio.move_on_after(fault.seconds):
            await self.healed.wait()

    async def _crash(self, target: Target, fault: Fault, chance: random.Random) -> None:
        if isinstance(target, Sender):
            target.die()
        elif target.running and target.name not in self._witness.dying:
            if chance.random() < 0.5:
                self._broker.cut(target.bus, lingering=True)
            await self._buried(target, fault)

    async def _buried(self, part: Process, fault: Fault) -> None:
        """Let a part that was killed be dead for a while, and start it again."""
        self._witness.dying.add(part.name)
        self._loop.resume(part.name)
        self._loop.spare(part.name)
        await part.crash()
        await self._lasts(fault)
        self._tasks.start_soon(self.begin, part)

    async def _doom(self, target: Target, fault: Fault, chance: random.Random) -> None:
        assert isinstance(target, Process)
        struck = anyio.Event()
        lingering = chance.random() < 0.5

        def die() -> None:
            self._witness.note(f"{target.name} dies here")
            self._witness.dying.add(target.name)
            self._broker.cut(target.bus, lingering=lingering)
            target.die()
            struck.set()

        if not target.running or target.name in self._witness.dying:
            return
        self._loop.doom(target.name, chance.choice((10, 100, 1000)) * chance.randint(1, 9) // 3, die)
        with anyio.move_on_after(10.0):
            await struck.wait()
        self._loop.spare(target.name)
        if struck.is_set():
            await self._buried(target, fault)

    async def _pause(self, target: Target, fault: Fault, _: random.Random) -> None:
        self._loop.pause(target.name)
        await self._lasts(fault)
        self._distrust(target.name)
        self._loop.resume(target.name)

    async def _cut(self, target: Target, fault: Fault, _: random.Random) -> None:
        bus = target.bus
        self._broker.cut(bus)
        await self._lasts(fault)
        self._broker.restore(bus)

    async def _cut_on_answer(self, target: Target, fault: Fault, _: random.Random) -> None:
        bus = target.bus
        wire = bus.link.wire
        self._broker.cut(bus, on_answer=True)
        await self._lasts(fault)
        if wire is not None:
            wire.on_answer = None
        self._broker.restore(bus)

    async def _linger(self, target: Target, fault: Fault, chance: random.Random) -> None:
        """Let messages be late, then break the connection while they are on their way."""
        bus = target.bus
        target.weather.storm(4.0 * chance.random(), 0.0, 0.0)
        await anyio.sleep(chance.random())
        self._broker.cut(bus, lingering=True)
        target.weather.calm()
        await anyio.sleep(0.02 if chance.random() < 0.5 else min(fault.seconds, 3.0))
        self._broker.restore(bus)

    async def _partition(self, target: Target, fault: Fault, _: random.Random) -> None:
        target.parted = True
        self._broker.cut(target.bus)
        await self._lasts(fault)
        target.parted = False
        self._broker.restore(target.bus)

    async def _storm(self, target: Target, fault: Fault, chance: random.Random) -> None:
        latest_s = chance.choice((0.0, 0.01, 0.1, 1.0))
        target.weather.storm(latest_s, chance.choice((0.0, 0.05, 0.3)), chance.choice((0.0, 0.1, 0.5)))
        await self._lasts(fault)
        target.weather.calm()

    async def _jump(self, target: Target, fault: Fault, chance: random.Random) -> None:
        assert isinstance(target, SimulatedNode)
        self._distrust(target.name)
        target.clock.wrong_s += chance.choice((-1, 1)) * chance.choice((0.5, 5.0, 60.0, 3600.0)) * chance.random()
        await self._lasts(fault)
        self._distrust(target.name)
        target.clock.wrong_s = 0.0

    async def _refuse(self, target: Target, _: Fault, chance: random.Random) -> None:
        assert isinstance(target, SimulatedNode)
        target.fake.refuse(chance.choice(STEPS))

    async def _hang(self, target: Target, fault: Fault, chance: random.Random) -> None:
        assert isinstance(target, SimulatedNode)
        hang = target.fake.hang(chance.choice((*CALLS, *STEPS)), after=chance.random() < 0.5)
        with anyio.move_on_after(10.0):
            await hang.met()
        await self._lasts(fault)
        hang.release()

    async def _strike(self, target: Target, fault: Fault, chance: random.Random) -> None:
        """Kill a worker in the middle of a call, before or after its effect."""
        assert isinstance(target, SimulatedNode)
        hang = target.fake.ambush(after=chance.random() < 0.5)
        with anyio.move_on_after(10.0):
            await hang.met()
        if hang.entered.is_set() and target.running and target.name not in self._witness.dying:
            await self._buried(target, fault)
        hang.release()

    async def _lose(self, target: Target, fault: Fault, _: random.Random) -> None:
        assert isinstance(target, SimulatedNode)
        target.fake.lose()
        await self._lasts(fault)
        target.fake.restore()

    async def _lost_answer(self, target: Target, fault: Fault, chance: random.Random) -> None:
        """Let the hypervisor's connection break when it has done what it was asked."""
        assert isinstance(target, SimulatedNode)
        lost = Lost("the connection broke before the answer came")
        met = target.fake.faults.fail(lost, chance.choice(CALLS), after=chance.random() < 0.7)
        await self._lasts(fault)
        if met.entered.is_set():
            target.fake.sever("it broke")

    async def _mute(self, target: Target, fault: Fault, _: random.Random) -> None:
        assert isinstance(target, SimulatedNode)
        target.fake.hold_events()
        await self._lasts(fault)
        target.fake.release_events()

    async def _blind(self, target: Target, fault: Fault, chance: random.Random) -> None:
        assert isinstance(target, SimulatedNode)
        domains = list(target.fake.machine.domains.values())
        for domain in domains and [chance.choice(domains)]:
            domain.readable = False
            await self._lasts(fault)
            domain.readable = True

    async def _restart_broker(self, fault: Fault) -> None:
        self._broker.stop()
        with anyio.move_on_after(min(fault.seconds, 10.0)):
            await self.healed.wait()
        self._broker.start()

    def _distrust(self, node: str) -> None:
        self._witness.ledger.disturbed[node] = self._clock() + TRUST_S
