"""What the node's domains are: folded from events and looks, repaired by full scans.

`known` is the observed state as of the last event told. Between an opening of a hypervisor and the end of the scan that
follows, continuity is broken: `stream.gap`, each difference as a synthetic event, `stream.resync` (PROTOCOL §5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from orchestrator.protocol.command import HEADER_TRACEPARENT, HEADER_TRACESTATE
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.moment import timestamp
from workers.domain.observe import Unseen, incarnations, is_active, observed, project_of, rewound, unseen
from workers.drivers.port import Happening, Sighting
from workers.engine.hypervisor import Hypervisor
from workers.engine.outbox import Draft, Effect, Outbox
from workers.journal.port import Entry, Position

GRACE_S = 0.05
"""Seconds that a callback may lag behind the state that a scan sees."""


class Fold(msgspec.Struct, frozen=True):
    """Events of one domain with the state that follows; the state's effect hangs on the last of `drafts`."""

    drafts: list[Draft]
    domains: Mapping[str, Observed | None]
    effects: Mapping[int, Effect]


NOTHING = Fold([], {}, {})


class Inventory:
    """One node's domains."""

    def __init__(
        self, node: str, default_project: str, outbox: Outbox, known: dict[str, Observed], *, clock: Callable[[], float]
    ) -> None:
        """`known` is what the journal remembers, by UUID."""
        self.known = known
        self.homes: dict[str, Hypervisor] = {}
        self.default_project = default_project
        self._node = node
        self._outbox = outbox
        self._clock = clock
        self._scans: list[set[str]] = []

    def fold(
        self, hypervisor: Hypervisor, uuid: str, seen: Sequence[Happening], now: Sighting | None, cause: Entry | None = None
    ) -> Fold:
        """Return the events `seen` (or, if none, those that the difference tells) and take over the state `now` (None: gone).

        Call it with no await between it and `Outbox.tell`. `cause` is the command that ran meanwhile.
        """
        before = self.known.get(uuid)
        events = [Unseen(f"{happening.event}.{happening.detail}", happening.data) for happening in seen] or unseen(before, now)
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

    def _remember(self, hypervisor: Hypervisor, uuid: str, after: Observed | None) -> None:
        for moved in self._scans:
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

    def project_of(self, sighting: Sighting) -> str:
        """Return the project that a sighted domain belongs to."""
        return project_of(sighting, self.default_project)

    async def resync(self, hypervisor: Hypervisor, reason: str, *, inspect: Callable[[str], None]) -> None:
        """Scan a hypervisor just opened, and tell what went unseen, inside a bracket.

        `inspect` has a domain that moved while the scan ran looked at again, in its turn. Raises
        `DriverError` (nothing told but the gap), `JournalFull`.
        """
        data: dict[str, Any] = {"reason": reason, "hypervisor": hypervisor.uri}
        await self._outbox.tell([Draft(name="stream.gap", data=data | {"from": _place(self._outbox.last)})])
        moved: set[str] = set()
        self._scans.append(moved)
        try:
            sightings = {sighting.uuid: sighting for sighting in await hypervisor.reads.submit(lambda: _scan(hypervisor))}
            await anyio.sleep(GRACE_S)
            held = await self._look_again(hypervisor, sightings)
        finally:
            self._scans.remove(moved)
        mine = {uuid for uuid, domain in self.known.items() if domain.hypervisor == hypervisor.uri}
        for uuid in sorted(mine | sightings.keys()):
            if uuid in moved:
                inspect(uuid)
                continue
            self.homes[uuid] = hypervisor
            await self._compare(hypervisor, uuid, sightings.get(uuid), held.get(uuid, []))
        await self._outbox.tell([Draft(name="stream.resync", data=data | {"to": _place(self._outbox.last)})])

    async def _look_again(self, hypervisor: Hypervisor, sightings: dict[str, Sighting]) -> dict[str, list[Happening]]:
        """Look again at those that had events since the opening; return these events by UUID."""
        taken, hypervisor.held = hypervisor.held, []
        held: dict[str, list[Happening]] = {}
        for happening in taken:
            held.setdefault(happening.uuid, []).append(happening)
        for uuid in held:
            sighting = await hypervisor.reads.submit(lambda uuid=uuid: hypervisor.sight(uuid))  # type: ignore[misc]
            if sighting is None:
                sightings.pop(uuid, None)
            else:
                sightings[uuid] = sighting
        return held

    async def _compare(self, hypervisor: Hypervisor, uuid: str, now: Sighting | None, held: Sequence[Happening]) -> None:
        went_unseen = self.fold(hypervisor, uuid, (), rewound(now, held, self.known.get(uuid)))
        if went_unseen.drafts:
            await self._outbox.tell(went_unseen.drafts, domains=went_unseen.domains, effects=went_unseen.effects)
        if held:
            live = self.fold(hypervisor, uuid, held, now)
            await self._outbox.tell(live.drafts, domains=live.domains, effects=live.effects)


def _place(position: Position) -> dict[str, str]:
    return {"epoch": position.epoch, "sequence": f"{position.sequence:016d}"}


def _incarnations(
    events: Sequence[Unseen], seen: Sequence[Happening], before: Observed | None, now: Sighting | None
) -> list[str | None]:
    earlier = before.incarnation if before is not None and is_active(before) else None
    current = now.incarnation if now is not None and now.active else None
    if seen:
        return incarnations(seen, earlier, current)
    return [earlier if event.name == "lifecycle.stopped" else current or earlier for event in events]


def _scan(hypervisor: Hypervisor) -> list[Sighting]:
    marked = (hypervisor.marked(sighting) for sighting in hypervisor.driver.scan())
    return [sighting for sighting in marked if sighting is not None]
