"""The loops of one run of a worker: how they are wired, and the order in which crash safety lets them start."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from orchestrator.bus.port import Bus, Message
from orchestrator.protocol import token
from orchestrator.protocol.subject import Subjects, domain_key
from orchestrator.store.kv import KeyValue
from workers.domain.scope import Scope
from workers.drivers.port import Driver
from workers.engine.cancels import Cancels
from workers.engine.doubt import Doubts
from workers.engine.execution import Surroundings
from workers.engine.gate import Gate
from workers.engine.health import Health
from workers.engine.hooks import Hooks
from workers.engine.hypervisor import Hypervisor
from workers.engine.intake import Intake
from workers.engine.inventory import Inventory
from workers.engine.lane import Lanes
from workers.engine.lease import LeaseKeeper
from workers.engine.ledger import Ledger
from workers.engine.looks import Looks
from workers.engine.order import read_order
from workers.engine.outbox import NO_EFFECT, Draft, Effect, Outbox, Waiting
from workers.engine.progress import Progress
from workers.engine.projection import Projection
from workers.engine.publisher import Publisher
from workers.engine.questions import Questions
from workers.engine.record import NodeRecord
from workers.engine.runner import Runner
from workers.engine.share import shares
from workers.engine.survey import Survey
from workers.engine.vigil import Vigil
from workers.journal.fences import Fences
from workers.journal.port import Entry, Journal, Recovery

OPEN_S = 90.0
"""Seconds that a start waits for a hypervisor that neither opens nor fails: QEMU's abilities may be probed meanwhile."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told about itself. scope: the domains that it serves. lanes: for calls into hypervisors."""

    node: str
    subjects: Subjects
    scope: Scope
    labels: Mapping[str, str]
    version: str
    lanes: Lanes
    hooks: Hooks
    clock: Callable[[], float] = time.time
    randomness: Callable[[int], bytes] = os.urandom


class Assembly:
    """All parts of a worker, from taking its lease to its end."""

    def __init__(
        self, settings: Settings, bus: Bus, journal: Journal, drivers: Sequence[Driver], recovery: Recovery, epoch: str
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._journal = journal
        self._recovery = recovery
        self._epoch = epoch
        self._intake_runs = False
        node, subjects, clock = settings.node, settings.subjects, settings.clock
        self._progress = Progress(recovery.cursor, recovery.above, {entry.sequence for entry in recovery.unfinished})
        self._outbox = Outbox(journal, subjects, node, epoch, left=self._left(), clock=clock)
        self._inventory = Inventory(node, settings.scope, self._outbox, dict(recovery.domains), clock=clock)
        self._vigil = Vigil(self._inventory, self._outbox, clock=clock)
        self._looks = Looks(self._inventory, self._vigil)
        self._runner = Runner(self._inventory, self._outbox, self._looks)
        self._vigil.serve(self._runner.inspect, self._runner.waiting)
        self._hypervisors = [
            Hypervisor(driver, lanes, self._incarnation, self._runner.happened, missed=self._runner.missed, scope=settings.scope)
            for driver, lanes in zip(drivers, shares(settings.lanes, len(drivers)), strict=True)
        ]
        self._inventory.settle_in(self._hypervisors)
        self._survey = Survey(self._inventory, self._outbox, self._looks)
        self._health = Health(node, self._hypervisors, self._outbox)
        ended = [(domain_key(node, entry.project, entry.uuid), entry) for entry in recovery.recent]
        answers = [(key, self._res(entry), entry.result, entry.deadline) for key, entry in ended]
        self._projection = Projection(bus, self._store("domains"), node, self._inventory.known, answers, clock=self._broker_time)
        self._publisher = Publisher(bus, journal, self._outbox, subjects, node, self._stored)
        self._begun = _begun(recovery)
        fences = Fences(recovery.fences)
        self._gate = Gate(node, self._progress, begun=self._begun, fences=fences, crowd=self._vigil.crowd)
        self._ledger = ledger = self._make_ledger()
        self._runner.around = self._surroundings(ledger)
        self._intake = Intake(bus, journal, subjects, node, self._progress, ledger.enter, ledger.reached)
        self._record = NodeRecord(
            self._store("nodes"),
            node,
            epoch,
            self._hypervisors,
            self._inventory,
            self._health,
            labels=settings.labels,
            scope=settings.scope,
            version=settings.version,
            clock=clock,
        )
        own = frozenset(recovery.epochs)
        self._lease = LeaseKeeper(self._store("leases"), node, epoch, own, self._progress, healthy=self._healthy, clock=clock)

    async def start(self, tasks: TaskGroup) -> None:
        """Start all loops; return once the node is online, scanned, and takes commands. Raises `Taken`."""
        await self._lease.take()
        tasks.start_soon(self._lease.run)
        last = self._recovery.last
        previous = {"epoch": last.epoch, "sequence": f"{last.sequence:016d}"} if last is not None else None
        await self._outbox.tell([Draft(name="node.online", data={"node": self._settings.node, "previous": previous})])
        tasks.start_soon(self._settings.hooks.run)
        tasks.start_soon(self._publisher.run)
        await self._inventory.disown()
        tasks.start_soon(self._projection.run)
        await tasks.start(self._runner.run)
        tasks.start_soon(self._vigil.run)
        for hypervisor in self._hypervisors:
            tasks.start_soon(hypervisor.run, self._opened, self._polled, self._health.changed)
        with anyio.move_on_after(OPEN_S):
            for hypervisor in self._hypervisors:
                await hypervisor.tried()
        await self._inventory.forsake()
        await self._take_up()
        await tasks.start(self._intake.run)
        self._intake_runs = True
        tasks.start_soon(self._sweep)
        await tasks.start(self._serve)
        # The hypervisors may have taken longer to open than a lease lasts without them.
        await self._lease.renew()

    async def quiesce(self) -> None:
        """Begin nothing more; return once what runs has ended, its events are in the log, and the lease is given back."""
        await self._runner.quiesce()
        await self._outbox.emptied()
        await self._lease.leave()

    def forget(self, ended_before: float) -> None:
        """Drop what the journal has forgotten."""
        self._gate.forget(ended_before, self._inventory.known)

    async def _take_up(self) -> None:
        """Go on with what the journal holds: what had begun is settled, what had not is queued."""
        for entry in self._recovery.unfinished:
            if entry.phase == "ended":
                continue
            message = Message(entry.subject, entry.body, entry.headers, sequence=entry.sequence)
            order = read_order(message, self._settings.subjects)
            self._ledger.resume(msgspec.structs.replace(order, entry=entry))
        await self._ledger.judge()

    async def _opened(self, hypervisor: Hypervisor, reason: str) -> None:
        await self._survey.resync(hypervisor, reason, inspect=self._runner.inspect)

    async def _polled(self, hypervisor: Hypervisor) -> None:
        await self._survey.poll(hypervisor, inspect=self._runner.inspect)

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        settings = self._settings
        questions = Questions(settings.node, settings.subjects, self._journal, self._inventory, self._looks, clock=settings.clock)
        async with self._bus.serve(
            settings.subjects.service("worker"),
            settings.subjects.asks(settings.node),
            questions.answer,
            version=settings.version,
            metadata={"node": settings.node, "epoch": self._epoch},
        ):
            task_status.started()
            await anyio.sleep_forever()

    async def _sweep(self) -> None:
        """Remove the state keys that earlier workers of this node have left, once all that they had to tell is told."""
        await self._outbox.emptied()
        node, bucket = self._settings.node, self._settings.subjects.bucket("domains")
        async with aclosing(KeyValue(self._bus, bucket, watcher=node).watch(f"{node}.>")) as portions:
            async for entries in portions:
                if entries is None:
                    return
                self._projection.sweep(entry.key for entry in entries if entry.value is not None)

    async def _healthy(self) -> None:
        """Prove that the hypervisors answer, write what is new of the node, and bring the cursor up to date."""
        await self._record.refresh()
        if self._intake_runs:
            await self._intake.audit()
        for uuid in self._inventory.unread():
            # No event need ever come that says it can be read again.
            self._runner.inspect(uuid)
        for uuid in [uuid for uuid, sequence in self._begun.items() if sequence <= self._progress.cursor]:
            # Nothing lower can turn up any more.
            del self._begun[uuid]

    def _stored(self, events: list[Waiting]) -> None:
        for waiting in events:
            if waiting.effect.finishes:
                self._progress.finish(waiting.effect.finishes)
        self._projection.stored(events)
        self._settings.hooks.stored(events)

    def _left(self) -> list[Waiting]:
        """Return what the outbox held, each terminal event with its result as effect."""
        ends = {entry.event: entry for entry in self._recovery.unfinished if entry.phase == "ended"}
        left = []
        for event in self._recovery.outbox:
            entry = ends.get(event.position)
            effect = NO_EFFECT
            if entry is not None:
                effect = Effect(result=(self._res(entry), entry.result, entry.deadline), finishes=entry.sequence)
            left.append(Waiting(event, effect))
        return left

    def _make_ledger(self) -> Ledger:
        return Ledger(
            self._journal,
            self._outbox,
            self._progress,
            self._settings.subjects,
            self._settings.node,
            gate=self._gate,
            doubts=Doubts(self._recovery.doubt),
            submit=self._runner.submit,
            cancels=Cancels(self._journal, self._progress, self._runner.withdraw, self._runner.abort, self._broker_time),
            answer=self._projection.answer,
            clock=self._broker_time,
        )

    def _surroundings(self, ledger: Ledger) -> Surroundings:
        return Surroundings(
            node=self._settings.node,
            journal=self._journal,
            outbox=self._outbox,
            inventory=self._inventory,
            ledger=ledger,
            hypervisors=self._hypervisors,
            vigil=self._vigil,
            hooks=self._settings.hooks,
            before=self._recovery.domains,
            undefined=_undefined(self._recovery),
            begun=self._begun,
            clock=self._broker_time,
        )

    def _broker_time(self) -> float:
        return self._settings.clock() + self._bus.offset_s

    def _res(self, entry: Entry) -> str:
        return self._settings.subjects.res(self._settings.node, entry.project, entry.id)

    def _store(self, bucket: str) -> KeyValue:
        return KeyValue(self._bus, self._settings.subjects.bucket(bucket))

    def _incarnation(self) -> str:
        return token.ulid(int(self._settings.clock() * 1000), self._settings.randomness(10))


def _begun(recovery: Recovery) -> dict[str, int]:
    begun: dict[str, int] = {}
    for entry in recovery.unfinished:
        if entry.phase != "received":
            begun[entry.uuid] = max(begun.get(entry.uuid, 0), entry.sequence)
    return begun


def _undefined(recovery: Recovery) -> set[str]:
    ended = [entry for entry in recovery.recent if entry.verb == "undefine" and b'"ok":true' in entry.result]
    return {entry.uuid for entry in ended} - recovery.domains.keys()
