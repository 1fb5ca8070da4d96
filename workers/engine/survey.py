"""Full scans: after each opening of a hypervisor, and again and again where one tells no events.

Between an opening of a hypervisor and the end of the scan that follows, continuity is broken: `stream.gap`, each
difference as a synthetic event, `stream.resync` (PROTOCOL §5). A poll breaks nothing: what differs is told in its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import anyio

from workers.domain.observe import rewound, unseen
from workers.drivers.port import Happening, Sighting
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.looks import Crowded, Looks, Silent
from workers.engine.outbox import Draft, Outbox

GRACE_S = 0.05
"""Seconds that a callback may lag behind the state that a scan sees."""


class Inspect(Protocol):
    """Has a domain looked at in its turn; with `stranger`, a hypervisor that shows it and is not its home."""

    def __call__(self, uuid: str, stranger: Hypervisor | None = None, /) -> None:
        """Do so."""


class Survey:
    """Scans the hypervisors of one node and compares with what is known."""

    def __init__(self, inventory: Inventory, outbox: Outbox, looks: Looks) -> None:
        self._inventory = inventory
        self._outbox = outbox
        self._looks = looks

    async def resync(self, hypervisor: Hypervisor, reason: str, *, inspect: Inspect) -> None:
        """Scan a hypervisor just opened, and tell what went unseen, inside a bracket.

        `inspect` has a domain that moved while the scan ran looked at again, in its turn. Raises
        `DriverError` (nothing told but the gap), `JournalFull`.
        """
        data: dict[str, Any] = {"reason": reason, "hypervisor": hypervisor.uri}
        await self._outbox.tell([Draft(name="stream.gap", data=data | {"from": self._outbox.end})])
        moved: set[str] = set()
        self._inventory.scans.append(moved)
        try:
            sightings = await self._looks.all(hypervisor)
            await anyio.sleep(GRACE_S)
            held = await self._look_again(hypervisor, sightings)
        finally:
            self._inventory.scans.remove(moved)
        for uuid in sorted(self._of(hypervisor) | sightings.keys()):
            if self._is_strange(hypervisor, uuid):
                inspect(uuid, hypervisor)
            elif uuid in moved:
                inspect(uuid)
            else:
                await self._compare(hypervisor, uuid, sightings.get(uuid), held.get(uuid, []))
        await self._outbox.tell([Draft(name="stream.resync", data=data | {"to": self._outbox.end})])

    async def poll(self, hypervisor: Hypervisor, *, inspect: Inspect) -> None:
        """Scan a hypervisor that tells no events; have what differs looked at, in its turn. Raises `DriverError`."""
        sightings = await self._looks.all(hypervisor)
        for uuid in sorted(self._of(hypervisor) | sightings.keys()):
            if self._is_strange(hypervisor, uuid):
                inspect(uuid, hypervisor)
            elif self._differs(uuid, sightings.get(uuid)):
                inspect(uuid)

    def _differs(self, uuid: str, now: Sighting | None) -> bool:
        before = self._inventory.known.get(uuid)
        return self._inventory.serves(before, now, None) and bool(unseen(before, now))

    def _is_strange(self, hypervisor: Hypervisor, uuid: str) -> bool:
        """Tell whether a domain has another home; one that has none is at home here."""
        return hypervisor in self._inventory.doubles.strangers(uuid) or self._inventory.homes.setdefault(uuid, hypervisor) is not hypervisor

    def _of(self, hypervisor: Hypervisor) -> set[str]:
        """Return the domains that `hypervisor` was seen to have, also those whose home is another one."""
        return {uuid for uuid, home in self._inventory.homes.items() if home is hypervisor} | self._inventory.doubles.of(hypervisor)

    async def _look_again(self, hypervisor: Hypervisor, sightings: dict[str, Sighting]) -> dict[str, list[Happening]]:
        """Look again at those that had events since the opening; return these events by UUID."""
        held = hypervisor.held.take()
        for uuid, happenings in held.items():
            try:
                sighting = await self._looks.at(hypervisor, uuid)
            except (Silent, Crowded):
                sighting = self._looks.unreadable(uuid, happenings)
            if sighting is None:
                sightings.pop(uuid, None)
            else:
                sightings[uuid] = sighting
        return held

    async def _compare(self, hypervisor: Hypervisor, uuid: str, now: Sighting | None, held: Sequence[Happening]) -> None:
        went_unseen = self._inventory.fold(hypervisor, uuid, (), rewound(now, held, self._inventory.known.get(uuid)))
        if went_unseen.drafts:
            await self._outbox.tell(went_unseen.drafts, domains=went_unseen.domains, effects=went_unseen.effects)
        if held:
            live = self._inventory.fold(hypervisor, uuid, held, now)
            await self._outbox.tell(live.drafts, domains=live.domains, effects=live.effects)
