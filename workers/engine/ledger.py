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
from orchestrator.protocol.error import Failure, WireError
from orchestrator.protocol.subject import NONE, Subjects
from workers.engine.cancels import Cancels, Verdict
from workers.engine.doubt import Doubts
from workers.engine.gate import Gate
from workers.engine.order import Order, own_id, read_order
from workers.engine.outbox import Draft, Effect, Outbox
from workers.engine.progress import Progress
from workers.journal.port import Change, Ended, Entry, Journal, Position, Received, Repeated

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
        gate: Gate,
        doubts: Doubts,
        submit: Submit,
        cancels: Cancels,
        answer: Answer,
        clock: Callable[[], float],
    ) -> None:
        """Hand new orders to `submit`, those out of turn to `cancels`, and answers to repeats to `answer`.

        gate: what judges new orders. doubts: what may have begun and is no longer known.
        """
        self._journal = journal
        self._outbox = outbox
        self._progress = progress
        self._subjects = subjects
        self._node = node
        self._gate = gate
        self._doubts = doubts
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
                self._doubts.note(known, message.sequence)
                continue
            if known is not None and known.digest == order.entry.digest:
                self._progress.enter(message.sequence, finished=True)
                changes.append(Repeated(message.sequence))
                repeats.append(known)
                continue
            order = self._doubts.weighed(order)
            entered = _Fresh(order if known is None else _renamed(order), self._gate.refusal(order, known), known)
            fresh[entered.order.entry.project, entered.order.entry.id] = entered
            self._progress.enter(message.sequence, finished=False)
            if entered.refusal is None:
                changes.append(Received(entered.order.entry))
        if changes:
            await self._journal.commit(*changes)
        await self._hand_on(fresh.values(), repeats)
        return bool(self._cancels)

    async def reached(self) -> None:
        """Take that the log was read to its end: hand on what was held, and judge the cancels that wait. Raises `JournalFull`."""
        if self._doubts.holding:
            for order, error in self._doubts.released():
                if error is None:
                    self._submit(order)
                else:
                    await self.end(order.entry, failed(order.entry, self._node, error))
        await self.judge()

    async def judge(self) -> None:
        """Judge the cancels that wait, unless what they are for may be held. Raises `JournalFull`."""
        if self._doubts.holding:
            return
        for verdict in self._cancels.judged():
            await self._cancel(verdict)

    def resume(self, order: Order) -> None:
        """Hand on what was entered before this start and has not ended."""
        self._take_up(self._doubts.recalled(order))

    def _take_up(self, order: Order) -> None:
        if order.command is not None and order.command.verb.kind == "control":
            self._cancels.add(order)
        elif self._doubts.holding:
            self._doubts.hold(order)
        else:
            self._submit(order)

    async def _hand_on(self, fresh: Iterable[_Fresh], repeats: Sequence[Entry]) -> None:
        for entered in fresh:
            if entered.refusal is None:
                self._take_up(entered.order)
        for entered in fresh:
            if entered.refusal is not None:
                await self.refuse(entered.order.entry, entered.refusal)
            if entered.taken is not None:
                self._answer_taken(entered)
        for entry in repeats:
            self._repeat(entry)
        if self._cancels:
            await self.judge()

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
            changed=verdict.changed,
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
        ends=entry,
    )
