"""One command on its way from the head of its domain's queue to its terminal event.

Three commits: received (in the ledger), begun, ended with all that it caused. A worker killed between two of them goes
on from there: what had begun is settled by looking, never run again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

import anyio
import msgspec

from orchestrator.log import get_logger
from orchestrator.protocol.cancel import CancelledBy
from orchestrator.protocol.command import Command, DomainRef, Result
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import DeadlineExceeded, HypervisorRefused, NodeUnavailable, Unsupported, WireError
from workers.domain.observe import remembered
from workers.domain.settle import among_others
from workers.drivers.port import Sighting
from workers.engine.attempt import Attempt, lane_of
from workers.engine.effect import caused
from workers.engine.hooks import Hooks
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import NOTHING, Fold, Inventory
from workers.engine.job import Job
from workers.engine.ledger import Ledger, failed
from workers.engine.lodging import Lodging
from workers.engine.order import Order
from workers.engine.outbox import Draft, Outbox
from workers.engine.perform import Errand, Performed, perform
from workers.engine.queue import DomainQueue
from workers.engine.settlement import Settlement
from workers.engine.survey import GRACE_S
from workers.engine.vigil import Vigil
from workers.journal.port import Begun, Entry, Journal

log = get_logger()


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all executions of a worker share.

    before: domains as they were known before this start. undefined: those that this worker removed. begun: by UUID, the highest
    sequence begun. clock: broker time, Unix seconds.
    """

    node: str
    journal: Journal
    outbox: Outbox
    inventory: Inventory
    ledger: Ledger
    hypervisors: list[Hypervisor]
    vigil: Vigil
    hooks: Hooks
    before: Mapping[str, Observed]
    undefined: set[str]
    begun: dict[str, int]
    clock: Callable[[], float]


class Execution:
    """One order of one domain."""

    def __init__(self, around: Surroundings, queue: DomainQueue, order: Order, command: Command) -> None:
        self._around = around
        self._queue = queue
        self.order = order
        self.over = False
        self._entry = order.entry
        self._doubt = order.doubt
        self._command = command
        known = around.inventory.known.get(queue.uuid)
        self._name = known.name if known is not None and known.project == order.entry.project else None
        self._settlement = Settlement(command, queue.uuid, around.before)
        self._started = asyncio.get_running_loop().time()
        self._job = Job(around.outbox, order, command.verb, self._name, around.ledger.reached) if command.verb.long else None
        self._lodging = Lodging(around.inventory, around.hypervisors, queue, order.entry, command, clock=around.clock)

    async def run(self) -> None:
        """Run it to its terminal event; what goes wrong ends this command and no other. Raises `JournalFull`."""
        try:
            hypervisor = await self._lodging.find()
            if hypervisor is None:
                return
            if self._entry.phase == "begun":
                await self._settle_doubt(hypervisor)
            else:
                await self._begin(hypervisor)
        except WireError as error:
            await self._end(Performed(False, None, error), NOTHING)

    def withdraw(self, entry: Entry) -> bool:
        """Take the command back if it is that of `entry` and still waits for its hypervisor: `run` returns, and somebody else ends it."""
        left = (entry.project, entry.id) == (self._entry.project, self._entry.id) and self._lodging.leave()
        self.over = self.over or left
        return left

    def abort(self, entry: Entry, by: str) -> bool:
        """Have the command given up while it runs, if it is that of `entry`, for the cancel `by`; False if it is not or cannot be."""
        return (entry.project, entry.id) == (self._entry.project, self._entry.id) and self._job is not None and self._job.abort(by)

    def _left(self) -> float:
        return self._entry.deadline - self._around.clock()

    async def _begin(self, hypervisor: Hypervisor) -> None:
        around, entry, uuid = self._around, self._entry, self._queue.uuid
        verb = self._command.verb
        if hypervisor.ability is None or verb.name not in hypervisor.ability.verbs:
            raise Unsupported(f"{hypervisor.uri} cannot {verb.name}{hypervisor.lack(verb.name)}")
        lane_of(hypervisor, verb)
        await around.hooks.begins(entry)
        around.begun[uuid] = max(around.begun.get(uuid, 0), entry.sequence)
        await (self._job.begin() if self._job is not None else around.journal.commit(Begun(entry.project, entry.id)))
        self.order.notice.runs = True
        errand = self._errand()
        attempt = Attempt(around.vigil, self._queue, hypervisor, entry, verb, lambda: perform(hypervisor, errand))
        async with self._followed(hypervisor):
            returned = await attempt.returned(entry.deadline, around.clock)
        if not returned:
            if attempt.withdrawn():
                raise DeadlineExceeded("not begun before its deadline: all threads for calls of this hypervisor were taken")
            await self._overrun()
            await attempt.returned(None, around.clock)
            await self._settled(hypervisor, attempt.performed)
            return
        performed = attempt.performed
        if performed.error is None and performed.changed and verb.event:
            await caused(self._queue, hypervisor, entry, verb, self._left)
            if verb.asks_guest:
                performed = msgspec.structs.replace(performed, after=await self._queue.look(hypervisor, []))
                if performed.after is not None and performed.after.active:
                    await self._overrun()
                    await self._settled(hypervisor, performed)
                    return
        elif isinstance(performed.error, HypervisorRefused) and verb.creates:
            # What it made and removed again is told by callbacks that may still be on their way.
            with anyio.move_on_after(GRACE_S):
                await self._queue.arrival()
        await self._end(performed, self._folded(hypervisor, performed))

    def _followed(self, hypervisor: Hypervisor) -> AbstractAsyncContextManager[None]:
        return self._job.followed(hypervisor) if self._job is not None else nullcontext()

    def _errand(self) -> Errand:
        around, uuid = self._around, self._queue.uuid
        known = around.inventory.known.get(uuid)
        usable = known is not None and known.state != "unknown" and not self._command.verb.creates
        return Errand(
            command=self._command,
            project=self._entry.project,
            uuid=uuid,
            project_of=around.inventory.project_of,
            scope=around.inventory.scope,
            undefined_here=uuid in around.undefined,
            known=remembered(known) if usable else None,
        )

    def _folded(self, hypervisor: Hypervisor, performed: Performed) -> Fold:
        """Return what there is to tell before the terminal event."""
        if performed.error is not None and performed.after is None and not self._queue.has("undefined"):
            # What it may have done nobody has seen, and no event need tell: it is looked at in its turn.
            self._queue.inspect = self._queue.inspect or performed.changed
            return NOTHING
        return self._around.inventory.fold(hypervisor, self._queue.uuid, self._queue.take(hypervisor), performed.after, self._entry)

    async def _end(self, performed: Performed, fold: Fold) -> None:
        entry, after = self._entry, performed.after
        self.over = True
        duration_ms = round((asyncio.get_running_loop().time() - self._started) * 1000, 3)
        domain = DomainRef(uuid=entry.uuid, name=self._name)
        if after is not None:
            domain = DomainRef(uuid=entry.uuid, name=after.name, state=after.state)
        if self._job is not None and self._job.by is not None and performed.aborted and performed.error is not None:
            performed = msgspec.structs.replace(performed, error=CancelledBy(self._job.by, began=True, outcome=performed.error.outcome))
        if performed.error is not None:
            result = failed(entry, self._around.node, performed.error, duration_ms=duration_ms, domain=domain)
        else:
            result = Result(
                id=entry.id,
                verb=entry.verb,
                ok=True,
                changed=performed.changed,
                node=self._around.node,
                project=entry.project,
                domain=domain,
                result={},
                duration_ms=duration_ms,
            )
            self._remember(after)
        incarnation = after.incarnation if after is not None else None
        ledger = self._around.ledger
        await ledger.end(entry, result, drafts=fold.drafts, domains=fold.domains, effects=fold.effects, incarnation=incarnation)
        if self._job is not None and self._job.by is not None:
            await ledger.reached()

    def _remember(self, after: Sighting | None) -> None:
        if after is not None:
            self._around.undefined.discard(self._queue.uuid)
        elif self._entry.verb == "undefine":
            self._around.undefined.add(self._queue.uuid)

    async def _overrun(self) -> None:
        """End a command whose time is over while it runs; what became of it is told later."""
        log.warning("command overran its deadline", id=self._entry.id, verb=self._entry.verb, uuid=self._queue.uuid)
        error = DeadlineExceeded("begun, but not finished before its deadline; command.settled tells what became of it", outcome="unknown")
        await self._end(Performed(True, None, error), NOTHING)

    async def _settled(self, hypervisor: Hypervisor, performed: Performed) -> None:
        """Look, and tell what became of a command that overran."""
        entry, seen = self._entry, self._queue.take(hypervisor)
        now = await self._queue.look(hypervisor, seen)
        outcome = self._settlement.outcome(now)
        if outcome == "unknown":
            # The state cannot tell (a reboot): the call that returned can.
            outcome = "applied" if performed.error is None else performed.error.outcome
        fold = self._around.inventory.fold(hypervisor, self._queue.uuid, seen, now, entry)
        draft = Draft(
            name="command.settled",
            project=entry.project,
            domain=entry.uuid,
            data={"id": entry.id, "verb": entry.verb, "outcome": outcome},
            domainname=now.name if now is not None else None,
            commandid=entry.id,
        )
        await self._around.outbox.tell([*fold.drafts, draft], domains=fold.domains, effects=fold.effects)

    async def _settle_doubt(self, hypervisor: Hypervisor) -> None:
        """End a command that had begun when the worker died: by looking, never by running it again."""
        if self._job is not None and not await self._outlived(hypervisor, self._job):
            return
        seen = self._queue.take(hypervisor)
        now = await self._queue.look(hypervisor, seen)
        outcome = self._settlement.outcome(now)
        if self._doubt == "crowd":
            outcome = among_others(self._command.verb, outcome)
        fold = self._around.inventory.fold(hypervisor, self._queue.uuid, seen, now, self._entry)
        error = None
        if outcome != "applied":
            cause = "the worker ended while this ran" if self._doubt == "crash" else "the worker lost its journal and this may have begun"
            found = {"none": "but it had no effect", "partial": "and it is half done"}.get(outcome, "and nothing tells its effect")
            error = NodeUnavailable(f"{cause}, {found}", outcome=outcome, retryable=outcome == "none")
        given_up = outcome in ("none", "partial")
        await self._end(Performed(error is not None or not self._settlement.held_before, now, error, aborted=given_up), fold)

    async def _outlived(self, hypervisor: Hypervisor, job: Job) -> bool:
        """Wait for a job that outlived the worker that began it; False if its command's time was over first, and ended it."""
        async with job.followed(hypervisor):
            if await job.over(hypervisor, self._left):
                return True
        await self._overrun()
        await job.over(hypervisor, lambda: math.inf)
        await self._settled(hypervisor, Performed(True, None, NodeUnavailable("the worker ended while this ran", outcome="unknown")))
        return False
