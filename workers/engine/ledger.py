"""The command ledger at work: each message once, each command one outcome, repeats answered with the first.

What enters is either a new command for its domain's queue, a repeat, or something that ends at once: malformed, an id
used for something else, more than the node takes in, or overtaken by a later command of its domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.bus.port import Message
from orchestrator.protocol import codec
from orchestrator.protocol.cancel import CancelledBy, finding
from orchestrator.protocol.command import HEADER_TRACEPARENT, HEADER_TRACESTATE, DomainRef, Result
from orchestrator.protocol.error import Busy, Conflict, Failure, WireError
from orchestrator.protocol.subject import NONE, Subjects
from workers.engine.cancels import Cancels, Verdict
from workers.engine.order import Order, own_id, read_order
from workers.engine.outbox import Draft, Effect, Outbox
from workers.engine.progress import Progress
from workers.journal.port import Change, Ended, Entry, Journal, Position, Received, Repeated

MAX_OPEN = 1_000
"""Commands that may be unfinished on a node; what exceeds that ends as `busy`."""

MAX_OPEN_CANCELS = 2 * MAX_OPEN
"""The same for what cancels them: a full node is where one wants to."""

Submit = Callable[[Order], None]
Answer = Callable[[str, str, str, bytes, float], None]
"""Sends a result again: project and UUID of the domain, subject, body, deadline in broker time."""


class _Fresh(msgspec.Struct, frozen=True):
    """A new entry, and what ends it at once, if anything."""

    order: Order
    refusal: WireError | None
    taken: Entry | None = None
    """The command whose id it bore, if it had to be given another."""


class Ledger:
    """One worker's commands, from the log to their outcome."""

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        progress: Progress,
        subjects: Subjects,
        node: str,
        *,
        begun: Mapping[str, int],
        fences: dict[str, int],
        submit: Submit,
        cancels: Cancels,
        answer: Answer,
        clock: Callable[[], float],
    ) -> None:
        """Hand new orders to `submit`, those out of turn to `cancels`, and answers to repeats to `answer`.

        begun: by UUID, the highest sequence begun. fences: by UUID, the highest fence seen.
        """
        self._journal = journal
        self._outbox = outbox
        self._progress = progress
        self._subjects = subjects
        self._node = node
        self._begun = begun
        self._fences = fences
        self._submit = submit
        self._cancels = cancels
        self._answer = answer
        self._clock = clock

    async def enter(self, messages: Sequence[Message]) -> bool:
        """Enter messages in the order of the log, commit them as one, then hand them on. Raises `JournalFull`.

        Return whether one of them waits until the log was read up to it: then `reached` is to be called.
        """
        fresh: dict[tuple[str, str], _Fresh] = {}
        changes: list[Change] = []
        repeats: list[Entry] = []
        for message in messages:
            order = read_order(message, self._subjects)
            known = self._known(order.entry, fresh)
            if known is not None and self._progress.knows(message.sequence):
                continue
            if known is not None and known.digest == order.entry.digest:
                self._progress.enter(message.sequence, finished=True)
                changes.append(Repeated(message.sequence))
                repeats.append(known)
                continue
            entered = _Fresh(order if known is None else _renamed(order), self._refusal(order, known), known)
            fresh[entered.order.entry.project, entered.order.entry.id] = entered
            self._progress.enter(message.sequence, finished=False)
            if entered.refusal is None:
                changes.append(Received(entered.order.entry))
        if changes:
            await self._journal.commit(*changes)
        await self._hand_on(fresh.values(), repeats)
        return bool(self._cancels)

    async def reached(self) -> None:
        """Judge the cancels that wait, now that the log may have been read further. Raises `JournalFull`."""
        for verdict in self._cancels.judged():
            await self._cancel(verdict)

    def take_up(self, order: Order) -> None:
        """Hand on what was entered before this start and has not ended."""
        if order.command is not None and order.command.verb.kind == "control":
            self._cancels.add(order)
        else:
            self._submit(order)

    async def _hand_on(self, fresh: Iterable[_Fresh], repeats: Sequence[Entry]) -> None:
        for entered in fresh:
            if entered.refusal is None:
                self.take_up(entered.order)
        for entered in fresh:
            if entered.refusal is not None:
                await self.refuse(entered.order.entry, entered.refusal)
            if entered.taken is not None:
                self._answer_taken(entered)
        for entry in repeats:
            self._repeat(entry)
        if self._cancels:
            await self.reached()

    async def _cancel(self, verdict: Verdict) -> None:
        """End a cancel, and with it in one commit the command that it is for, if that has not begun."""
        entry, target = verdict.entry, verdict.target
        if verdict.error is not None:
            await self.end(entry, failed(entry, self._node, verdict.error))
            return
        result = Result(
            id=entry.id,
            verb=entry.verb,
            ok=True,
            changed=target is not None,
            node=self._node,
            project=entry.project,
            domain=DomainRef(uuid=entry.uuid),
            result=msgspec.to_builtins(verdict.fate),
            duration_ms=0.0,
        )
        if target is None:
            await self.end(entry, result)
            return
        gone = failed(target, self._node, CancelledBy(entry.id))
        body = codec.encode(gone)
        at = Position(self._outbox.epoch, self._outbox.next_sequence)
        await self.end(
            entry,
            result,
            drafts=[_terminal(target, self._node, gone, body)],
            effects={0: Effect(result=self._told(target, body), finishes=target.sequence)},
            before=[Ended(target.project, target.id, body, at, self._clock())],
        )

    async def refuse(self, entry: Entry, error: WireError) -> None:
        """Enter a command and end it in the same commit, so that it is never taken for one that waits."""
        await self.end(entry, failed(entry, self._node, error), before=(Received(entry),))

    async def end(
        self,
        entry: Entry,
        result: Result,
        *,
        drafts: Sequence[Draft] = (),
        domains: Mapping[str, Any] | None = None,
        effects: Mapping[int, Effect] | None = None,
        incarnation: str | None = None,
        before: Sequence[Change] = (),
    ) -> None:
        """Fix a command's outcome: `drafts` (what it caused), then its terminal event, in one commit. Raises `JournalFull`."""
        body = codec.encode(result)
        terminal = _terminal(entry, self._node, result, body, incarnation)
        last = len(drafts)
        follows = dict(effects or {})
        state = follows[last].state if last in follows else None
        follows[last] = Effect(state=state, result=self._told(entry, body), finishes=entry.sequence)
        await self._outbox.tell(
            [*drafts, terminal],
            domains=domains,
            effects=follows,
            before=before,
            after=lambda position: (Ended(entry.project, entry.id, body, position, self._clock()),),
        )

    def _told(self, entry: Entry, body: bytes) -> tuple[str, bytes, float]:
        return self._subjects.res(self._node, entry.project, entry.id), body, entry.deadline

    def _known(self, entry: Entry, fresh: Mapping[tuple[str, str], _Fresh]) -> Entry | None:
        entered = fresh.get((entry.project, entry.id))
        return entered.order.entry if entered is not None else self._journal.find(entry.project, entry.id)

    def _refusal(self, order: Order, known: Entry | None) -> WireError | None:
        entry = order.entry
        if order.refused is not None:
            return order.refused
        if known is not None:
            return Conflict(f"id {entry.id!r} was used for {known.verb} of {known.uuid}, with another subject or body; choose a new id")
        out_of_turn = order.command is not None and order.command.verb.kind == "control"
        if self._progress.open >= (MAX_OPEN_CANCELS if out_of_turn else MAX_OPEN):
            return Busy(f"node {self._node} has {self._progress.open} commands waiting; try again later, with a new id")
        if entry.fence and entry.fence < self._fences.get(entry.uuid, 0):
            return Conflict(f"the order carries fence {entry.fence}, the domain has moved on to {self._fences[entry.uuid]}")
        if not out_of_turn and entry.sequence < self._begun.get(entry.uuid, 0):
            return Conflict("overtaken: a later command of this domain has begun already; send it again with a new id", retryable=True)
        if entry.fence:
            self._fences[entry.uuid] = entry.fence
        return None

    def _answer_taken(self, entered: _Fresh) -> None:
        """Say `conflict` under the id that was used twice, too: an answer to one message, not that command's end.

        Not while somebody may still wait for the first command's result.
        """
        taken, entry, refusal = entered.taken, entered.order.entry, entered.refusal
        if taken is None or refusal is None or taken.phase not in ("ended", "stored"):
            return
        result = msgspec.structs.replace(failed(entry, self._node, refusal), id=taken.id, final=False)
        self._answer(entry.project, entry.uuid, self._subjects.res(self._node, taken.project, taken.id), codec.encode(result), 0.0)

    def _repeat(self, entry: Entry) -> None:
        current = self._journal.find(entry.project, entry.id)
        if current is not None and current.phase == "stored":
            subject = self._subjects.res(self._node, entry.project, entry.id)
            self._answer(entry.project, entry.uuid, subject, current.result, self._clock() + 1.0)


def failed(entry: Entry, node: str, error: WireError, *, duration_ms: float = 0.0, domain: DomainRef | None = None) -> Result:
    """Return the result of a command that `error` ended."""
    failure: Failure = error.failure()
    return Result(
        id=entry.id,
        verb=entry.verb,
        ok=False,
        node=node,
        project=entry.project,
        domain=domain or (DomainRef(uuid=entry.uuid) if entry.uuid != NONE else None),
        result=finding(error),
        error=failure,
        duration_ms=duration_ms,
        subject=entry.subject if error.code == "invalid" or entry.uuid == NONE else msgspec.UNSET,
    )


def _renamed(order: Order) -> Order:
    """Return the order under an id of its own: the one it came with belongs to another command."""
    return msgspec.structs.replace(order, entry=msgspec.structs.replace(order.entry, id=own_id(order.entry.sequence)))


def _terminal(entry: Entry, node: str, result: Result, body: bytes, incarnation: str | None = None) -> Draft:
    """Return the event that tells a command's end; `body` is the result as JSON."""
    return Draft(
        name=result.event,
        project=entry.project,
        domain=entry.uuid,
        subject=entry.uuid if entry.uuid != NONE else node,
        data=msgspec.Raw(body),
        domainname=result.domain.name if result.domain is not None else None,
        incarnation=incarnation,
        commandid=entry.id,
        traceparent=entry.headers.get(HEADER_TRACEPARENT),
        tracestate=entry.headers.get(HEADER_TRACESTATE),
    )
