"""The outbox: events get their place here, are committed, and wait for the publisher in that order.

What a command changed and its terminal event are one commit; so is an event with the observed state that follows
from it. An event may leave the process only after its commit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.event import event, worker_source
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.subject import NONE, Subjects
from workers.journal.port import Change, Entry, Journal, OutboxEvent, Position, Told


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event before it has its place: `name` is `<event>[.<detail>]`, `domain` and `project` may be `_`. `ends`: the command it ends."""

    name: str
    project: str = NONE
    domain: str = NONE
    subject: str | None = None
    data: dict[str, Any] | msgspec.Raw
    domainname: str | None = None
    incarnation: str | None = None
    commandid: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    synthetic: bool = False
    ends: Entry | None = None


class Effect(msgspec.Struct, frozen=True):
    """What follows once an event is stored: the state key to write (None inside: remove), then the result to send."""

    state: tuple[str, str, Observed | None] | None = None
    """(project, uuid, observed)."""
    result: tuple[str, bytes, float] | None = None
    """(subject, body, deadline in broker time)."""
    finishes: int = 0
    """Sequence in `VIRT_RUN` of the command that this event ends, 0: none."""


NO_EFFECT = Effect()


class Waiting(msgspec.Struct, frozen=True):
    """An event in the outbox, with its effect."""

    event: OutboxEvent
    effect: Effect


class Outbox:
    """One worker's events on their way out, in order."""

    def __init__(
        self,
        journal: Journal,
        subjects: Subjects,
        node: str,
        epoch: str,
        *,
        left: Sequence[Waiting],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`left` is what the journal's outbox held; it goes out first, under the ids it has."""
        self._journal = journal
        self._subjects = subjects
        self._node = node
        self._source = worker_source(subjects.prefix, node)
        self._clock = clock
        self._previous: dict[tuple[str, str], int] = {}
        self._sequence = 0
        self._safe = left[-1].event.position if left else Position("", 0)
        self._wake = anyio.Event()
        self._empty = anyio.Event()
        self.epoch = epoch
        self.waiting: deque[Waiting] = deque(left)

    @property
    def next_sequence(self) -> int:
        """The sequence that the next event will get."""
        return self._sequence + 1

    @property
    def last(self) -> Position:
        """The last position given away in this epoch."""
        return Position(self.epoch, self._sequence)

    @property
    def end(self) -> dict[str, str]:
        """Where the events end now, as `stream.gap` and `stream.resync` say it."""
        return {"epoch": self.epoch, "sequence": f"{self._sequence:016d}"}

    async def tell(
        self,
        drafts: Sequence[Draft],
        *,
        domains: Mapping[str, Observed | None] | None = None,
        effects: Mapping[int, Effect] | None = None,
        before: Sequence[Change] = (),
        after: Callable[[Position], Sequence[Change]] | None = None,
    ) -> None:
        """Give `drafts` their places, commit them in one transaction with `before` and `after`, and let the publisher have them.

        effects: by index into `drafts`. after: called with the last draft's position. Raises `JournalFull`.
        """
        # No await from here to the commit's own queueing: places and commits are in one order.
        events = tuple(self._place(draft) for draft in drafts)
        changes = [*before, Told(events, domains or {}), *(after(events[-1].position) if after is not None else ())]
        effects = effects or {}
        self.waiting.extend(Waiting(event, effects.get(at, NO_EFFECT)) for at, event in enumerate(events))
        await self._journal.commit(*changes)
        self._safe = max(self._safe, events[-1].position)
        self._wake.set()

    def ready(self, limit: int) -> list[Waiting]:
        """Return up to `limit` committed events that wait, oldest first, and leave them in place."""
        found: list[Waiting] = []
        for waiting in self.waiting:
            if len(found) == limit or waiting.event.position > self._safe:
                break
            found.append(waiting)
        return found

    def drop_to(self, position: Position) -> list[Waiting]:
        """Take out and return all events up to `position`: they are in the log."""
        dropped: list[Waiting] = []
        while self.waiting and self.waiting[0].event.position <= position:
            dropped.append(self.waiting.popleft())
        if not self.waiting:
            self._empty.set()
        return dropped

    async def emptied(self) -> None:
        """Wait until no event waits."""
        while self.waiting:
            self._empty = anyio.Event()
            await self._empty.wait()

    async def filled(self) -> None:
        """Wait until a committed event waits."""
        while not self.waiting or self.waiting[0].event.position > self._safe:
            self._wake = anyio.Event()
            await self._wake.wait()

    def _place(self, draft: Draft) -> OutboxEvent:
        self._sequence += 1
        key = (draft.project, draft.domain)
        previous = self._previous.get(key, 0)
        self._previous[key] = self._sequence
        made = event(
            prefix=self._subjects.prefix,
            name=draft.name,
            source=self._source,
            node=self._node,
            project=draft.project,
            subject=draft.subject or (draft.domain if draft.domain != NONE else self._node),
            time=timestamp(self._clock()),
            epoch=self.epoch,
            sequence=self._sequence,
            previous=previous,
            data=draft.data,
            domainname=draft.domainname,
            incarnation=draft.incarnation,
            commandid=draft.commandid,
            commandsequence=draft.ends.sequence if draft.ends is not None else 0,
            commanddigest=draft.ends.digest if draft.ends is not None else None,
            commandfence=draft.ends.fence if draft.ends is not None else 0,
            traceparent=draft.traceparent,
            tracestate=draft.tracestate,
            synthetic=draft.synthetic,
        )
        subject = self._subjects.evt(self._node, draft.project, draft.domain, draft.name)
        return OutboxEvent(Position(self.epoch, self._sequence), subject, codec.encode(made))
