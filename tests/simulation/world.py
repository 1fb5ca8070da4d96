"""A seed's world from its beginning to rest: three nodes, coordinators, clients, what they do and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Message, Start
from orchestrator.engine.pace import Pace
from tests.simulation import ends
from tests.simulation.clients import Sender
from tests.simulation.faults import Mischief
from tests.simulation.loop import PartedLoop
from tests.simulation.plan import HORIZON_S, NODES, Fault, Meddling, Plan, Sending, reused
from tests.simulation.stage import ChanceWeather, JumpingClock, Process, SimulatedNode, SimulatedSeat
from tests.simulation.witness import SUBJECTS, Broken, Witness
from workers.testing.fleet import provision
from workers.testing.part import Ground

HEAL_S = HORIZON_S + 8.0
PATIENCE_S = 400.0
"""Seconds after the healing in which everything must have come to its end."""

REST_S = 35.0
"""Seconds for what is told, kept and tidied up after that: leases that count, records that are made."""

AGAIN = 8
"""Messages that are sent a last time, when all has ended."""


class Failure(msgspec.Struct, frozen=True):
    """A seed under which a law was broken."""

    seed: int
    reason: str
    trace: list[str]
    faults: list[Fault]


class World:
    """One seed's world."""

    def __init__(self, plan: Plan, *, whole: bool = False) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PartedLoop)
        self.plan = plan
        self.loop = loop
        self.broker = MemoryBroker(loop.wall)
        self.witness = Witness(loop.wall, loop.time, reused(plan), whole=whole)
        self.broker.logs.witness = self.witness.stored
        self.nodes: list[SimulatedNode] = []
        self.kept: dict[str, bytes] = {}

    async def run(self) -> None:
        """Let it all happen. Raises `Broken`."""
        structlog.configure(
            processors=[self.witness.log_line],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if self.witness.trace.maxlen is None else logging.WARNING),
        )
        try:
            await provision(self.broker, self.loop.wall)
            async with anyio.create_task_group() as tasks:
                await self._live(tasks)
                tasks.cancel_scope.cancel()
        finally:
            structlog.reset_defaults()

    async def _live(self, tasks: TaskGroup) -> None:
        mischief = Mischief(self.broker, self.loop, self.witness, tasks, self.loop.wall)
        tasks.start_soon(self._watch)
        await self._populate(mischief, tasks)
        await self._act(mischief, tasks)
        await self._heal(mischief)
        await self._until(lambda: not ends.endless(self.witness), PATIENCE_S)
        self.witness.note("all has ended")
        if missing := ends.endless(self.witness):
            self.witness.breach(f"accepted commands without an end: {sorted(missing)}")
        self.witness.check()
        await self._again(mischief)
        await self._judge()

    async def _populate(self, mischief: Mischief, tasks: TaskGroup) -> None:
        parts: list[Process] = []
        for name in NODES:
            clock = JumpingClock(self.loop.wall)
            node = SimulatedNode(self._ground(name, clock), self._weather(name), self.witness, clock)
            self.nodes.append(node)
            parts.append(node)
        parts += [
            SimulatedSeat(self._ground(name, self.loop.wall), self._weather(name), self.witness, pace=Pace())
            for name in self.plan.coordinators
        ]
        for name in ("k1", "k2"):
            sender = mischief.senders[name] = Sender(name, self.broker, self.loop.wall, self._weather(name), self.witness)
            tasks.start_soon(sender.live)
        for part in parts:
            mischief.parts[part.name] = part
            part.enlist(tasks)
            tasks.start_soon(mischief.begin, part)
            await self._until(lambda part=part: part.running and not mischief.busy, 60.0)  # type: ignore[misc]

    async def _act(self, mischief: Mischief, tasks: TaskGroup) -> None:
        began = self.loop.time()
        acts: list[Sending | Meddling | Fault] = [*self.plan.sendings, *self.plan.meddlings, *self.plan.faults]
        for act in sorted(acts, key=lambda act: act.at):
            await anyio.sleep(max(0.0, began + act.at - self.loop.time()))
            self.witness.check()
            if isinstance(act, Sending):
                mischief.senders[act.client].send(act)
            elif isinstance(act, Meddling):
                mischief.meddle(act)
            else:
                tasks.start_soon(mischief.do, act)
        await anyio.sleep(max(0.0, began + HEAL_S - self.loop.time()))

    async def _heal(self, mischief: Mischief) -> None:
        self.witness.note("all is healed")
        await mischief.heal()
        await self._until(lambda: not mischief.busy and all(part.running for part in mischief.parts.values()), 120.0)
        if mischief.busy:
            self.witness.breach("a part does not come up again though all is healed")

    async def _again(self, mischief: Mischief) -> None:
        """Send some messages once more: each must be told its first outcome, and have no second effect."""
        chance = random.Random(f"again {self.plan.seed}")
        ended = self.witness.events.ends
        before = dict(ended)
        answers = len(self.witness.answers)
        chosen = chance.sample([sending for sending in self.plan.sendings if (sending.project, sending.id) in ended], AGAIN)
        for sending in chosen:
            mischief.senders[sending.client].send(sending)
        await anyio.sleep(REST_S)
        for key, end in before.items():
            if ended[key] != end:
                self.witness.breach(f"the outcome of {key} changed from {end} to {ended[key]}")
        told = {(sending.project, sending.id) for sending, _ in self.witness.answers[answers:]}
        for sending in chosen:
            if sending.way == "api" and (sending.project, sending.id) not in told:
                self.witness.breach(f"the repeat of {sending.id} was not answered")

    async def _judge(self) -> None:
        kept: dict[str, bytes] = {}
        for message in await self._stored("KV_virt_domains", "$KV.virt_domains.>"):
            kept[message.subject.split(".", 2)[2]] = message.body
        ends.check_answers(self.witness)
        ends.check_states(self.witness, self.nodes, kept)
        ends.check_owners(self.witness, self.nodes)
        self.witness.check()

    async def _stored(self, log: str, subjects: str) -> Sequence[Message]:
        async with MemoryBus(self.broker, name="judge", clock=self.loop.wall) as bus:
            await bus.link.up()
            reader = await bus.reader(log, "judge", subjects, Start())
            return await reader.take(max(reader.pending, 1))

    async def _watch(self) -> None:
        async with (
            MemoryBus(self.broker, name="witness", clock=self.loop.wall) as bus,
            bus.listen(SUBJECTS.res("*", "*", "*"), self.witness.result),
        ):
            await anyio.sleep_forever()

    async def _until(self, holds: Callable[[], Any], within_s: float) -> None:
        with anyio.move_on_after(within_s):
            while not holds():
                self.witness.check()
                await anyio.sleep(0.5)

    def _weather(self, name: str) -> ChanceWeather:
        return ChanceWeather(random.Random(f"{self.plan.seed}/weather/{name}"))

    def _ground(self, name: str, clock: Callable[[], float]) -> Ground:
        chance = random.Random(f"{self.plan.seed}/{name}")
        return Ground(name=name, subjects=SUBJECTS, broker=self.broker, clock=clock, randomness=chance.randbytes)


def simulate(plan: Plan, *, whole: bool = False) -> tuple[Failure | None, list[str]]:
    """Let a plan happen in virtual time; return the failure, if any, and the trace."""
    traces: list[Witness] = []

    async def program() -> None:
        world = World(plan, whole=whole)
        traces.append(world.witness)
        with world.loop.guard():
            await world.run()

    reason = ""
    try:
        anyio.run(program, backend_options={"loop_factory": PartedLoop})
    except* Broken as broken:
        reason = _first(broken)
    except* Exception as error:  # noqa: BLE001 - whatever ends the world is what the seed has found
        reason = f"the world ended: {_first(error)!r}"
    trace = list(traces[0].trace) if traces else []
    return (Failure(plan.seed, reason, trace, plan.faults) if reason else None), trace


def _first(error: BaseException) -> Any:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, Broken) else error
