"""What the node's domains are: folded from events and looks. `known` is the observed state as of the last event told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.protocol.command import HEADER_TRACEPARENT, HEADER_TRACESTATE
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.verb import find
from workers.domain.observe import Unseen, incarnations, is_active, observed, project_of, remembered, unseen
from workers.domain.scope import Scope
from workers.drivers.port import Happening, Sighting, Tag
from workers.engine.doubles import Doubles
from workers.engine.hypervisor import Hypervisor
from workers.engine.outbox import Draft, Effect, Outbox
from workers.journal.port import Entry


class Fold(msgspec.Struct, frozen=True):
    """Events of one domain with the state that follows; the state's effect hangs on the last of `drafts`."""

    drafts: list[Draft]
    domains: Mapping[str, Observed | None]
    effects: Mapping[int, Effect]


NOTHING = Fold([], {}, {})


class Inventory:
    """One node's domains."""

    def __init__(
        self, node: str, scope: Scope, outbox: Outbox, known: dict[str, Observed], *, clock: Callable[[], float]
    ) -> None:
        """`known` is what the journal remembers, by UUID; of what is not in `scope` nothing is told."""
        self.known = known
        self.homes: dict[str, Hypervisor] = {}
        self.doubles = Doubles(node, outbox)
        self.scope = scope
        self.default_project = scope.default_project
        self._node = node
        self._outbox = outbox
        self._clock = clock
        self.scans: list[set[str]] = []
        """For each scan under way, the domains that moved meanwhile."""

    def fold(
        self, hypervisor: Hypervisor, uuid: str, seen: Sequence[Happening], now: Sighting | None, cause: Entry | None = None
    ) -> Fold:
        """Return the events `seen` (or, if none, those that the difference tells) and take over the state `now` (None: gone).

        Call it with no await between it and `Outbox.tell`. `cause` is the command that ran meanwhile.
        """
        before = self.known.get(uuid)
        now = self._tagged(hypervisor, _as_known(before, now), cause)
        if not self.serves(before, now, cause):
            return NOTHING if before is None else self._disowned(before)
        moved = before is not None and before.hypervisor != hypervisor.uri
        events = [Unseen(f"{happening.event}.{happening.detail}", happening.data) for happening in seen] or unseen(before, now, moved=moved)
        if not events:
            return NOTHING
        after = self._observe(hypervisor, now, self._outbox.next_sequence + len(events) - 1) if now is not None else None
        domain = after or before
        project = domain.project if domain is not None else self.default_project
        headers = cause.headers if cause is not None else {}
        drafts = [
            Draft(
                name=event.name,
                project=project,
                domain=uuid,
                data=msgspec.to_builtins(after) if event.name == "state.changed" else event.data,
                domainname=domain.name if domain is not None else None,
                incarnation=incarnation,
                commandid=cause.id if cause is not None else None,
                traceparent=headers.get(HEADER_TRACEPARENT),
                tracestate=headers.get(HEADER_TRACESTATE),
                synthetic=not seen,
            )
            for event, incarnation in zip(events, _incarnations(events, seen, before, now), strict=True)
        ]
        self._remember(hypervisor, uuid, after)
        return Fold(drafts, {uuid: after}, {len(drafts) - 1: Effect(state=(project, uuid, after))})

    def _tagged(self, hypervisor: Hypervisor, now: Sighting | None, cause: Entry | None) -> Sighting | None:
        """Return a new domain with what its maker said, where its hypervisor cannot keep that: from now on the journal does."""
        if now is None or now.tag is not None or hypervisor.keeps or cause is None or not find(cause.verb).creates:
            return now
        return msgspec.structs.replace(now, tag=self.scope.tag(cause.project))

    def _tag(self, uuid: str) -> Tag | None:
        known = self.known.get(uuid)
        return Tag(project=known.project, labels=known.labels, generation=known.generation) if known is not None else None

    def serves(self, before: Observed | None, now: Sighting | None, cause: Entry | None) -> bool:
        """Tell whether a domain is this worker's to speak of. Gone or unreadable, it is as it was; and what a command made, is."""
        if now is None or now.state == "unknown":
            return before is not None or cause is not None or not self.scope.limited
        return self.scope.serves(now)

    def _disowned(self, before: Observed) -> Fold:
        """Return that a domain is there and no longer served: its state key goes, and nothing is said of its life."""
        _, draft = self._restated(before, role="former")
        self.known.pop(before.uuid, None)
        for moved in self.scans:
            moved.add(before.uuid)
        return Fold([draft], {before.uuid: None}, {0: Effect(state=(before.project, before.uuid, None))})

    def _restated(self, before: Observed, **changes: Any) -> tuple[Observed, Draft]:
        """Return a domain as it is known from now on, though nobody looked, and the event that says so."""
        place = {"epoch": self._outbox.epoch, "sequence": f"{self._outbox.next_sequence:016d}", "updated": timestamp(self._clock())}
        after = msgspec.structs.replace(before, **place, **changes)
        draft = Draft(
            name="state.changed", project=after.project, domain=after.uuid, data=msgspec.to_builtins(after), domainname=after.name,
            incarnation=before.incarnation, synthetic=True,
        )
        return after, draft

    def restate(self, uuid: str) -> Fold:
        """Return that a domain is as it is known to be, for those who may have missed how it came to that."""
        before = self.known.get(uuid)
        if before is None:
            return NOTHING
        self.known[uuid], draft = self._restated(before)
        return Fold([draft], {uuid: self.known[uuid]}, {0: Effect(state=(before.project, uuid, self.known[uuid]))})

    async def disown(self) -> None:
        """Tell the domains that the journal remembers and this worker serves no more. Raises `JournalFull`."""
        for before in [domain for domain in self.known.values() if not self.scope.holds(domain.project, domain.labels)]:
            fold = self._disowned(before)
            await self._outbox.tell(fold.drafts, domains=fold.domains, effects=fold.effects)

    def _remember(self, hypervisor: Hypervisor, uuid: str, after: Observed | None) -> None:
        for moved in self.scans:
            moved.add(uuid)
        if after is None:
            self.known.pop(uuid, None)
            self.homes.pop(uuid, None)
        else:
            self.known[uuid] = after
            self.homes[uuid] = hypervisor

    def _observe(self, hypervisor: Hypervisor, sighting: Sighting, sequence: int) -> Observed:
        return observed(
            sighting,
            node=self._node,
            hypervisor=hypervisor.uri,
            default_project=self.default_project,
            epoch=self._outbox.epoch,
            sequence=sequence,
            updated=timestamp(self._clock()),
        )

    def unread(self) -> list[str]:
        """Return the domains that could not be read when they were looked at last."""
        return [uuid for uuid, domain in self.known.items() if domain.state == "unknown"]

    def unmarked(self) -> list[str]:
        """Return the UUIDs of running instances that could not be given an incarnation when they were looked at."""
        running = [uuid for uuid, observed in self.known.items() if is_active(observed) and observed.incarnation is None]
        return [uuid for uuid in running if (home := self.homes.get(uuid)) is not None and home.connected and home.keeps]

    def project_of(self, sighting: Sighting) -> str:
        """Return the project that a sighted domain belongs to."""
        return project_of(sighting, self.default_project)

    def settle_in(self, hypervisors: Iterable[Hypervisor]) -> None:
        """Give each domain that the journal remembers its hypervisor, so that it is at home there before the first scan."""
        served = {hypervisor.uri: hypervisor for hypervisor in hypervisors}
        for hypervisor in served.values():
            hypervisor.recall(self._tag)
        self.homes = {uuid: served[domain.hypervisor] for uuid, domain in self.known.items() if domain.hypervisor in served}

    async def forsake(self) -> None:
        """Tell the domains of hypervisors that this worker serves no more: what became of them is unknown. Raises `JournalFull`."""
        for uuid in sorted(self.known.keys() - self.homes.keys()):
            before = self.known[uuid]
            if before.state == "unknown":
                continue
            after, draft = self._restated(before, state="unknown", reason="not-served")
            self.known[uuid] = after
            await self._outbox.tell([draft], domains={uuid: after}, effects={0: Effect(state=(after.project, uuid, after))})


def _incarnations(
    events: Sequence[Unseen], seen: Sequence[Happening], before: Observed | None, now: Sighting | None
) -> list[str | None]:
    earlier = before.incarnation if before is not None and is_active(before) else None
    current = now.incarnation if now is not None and now.active else None
    if seen:
        return incarnations(seen, earlier, current)
    return [earlier if event.name == "lifecycle.stopped" else current or earlier for event in events]


def _as_known(before: Observed | None, now: Sighting | None) -> Sighting | None:
    """Return what is seen of a domain; of one that cannot be read, all but that is as it was known: whose it is cannot be read either."""
    known = remembered(before)
    if now is None or now.state != "unknown" or known is None:
        return now
    return msgspec.structs.replace(known, state=now.state, reason=now.reason)
