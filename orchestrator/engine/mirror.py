"""What the coordinator knows of the fleet: nodes, leases, domains and owners, each as its bucket has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

from orchestrator.bus.port import Bus
from orchestrator.engine.table import Table
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.node import Lease, Node
from orchestrator.protocol.subject import split_domain_key
from orchestrator.store.port import Store

Bucket = Callable[[str], Store]
"""Opens a bucket by its plain name: `nodes leases domains owners`."""


class Mirror:
    """Four tables and what can be looked up through them. Run it; `filled` returns once all were read.

    `leases` holds living leases only; `last_leases` the last one seen of each node, living or not.
    """

    def __init__(self, bus: Bus, bucket: Bucket) -> None:
        link = bus.link
        self.nodes: Table[Node] = Table(bucket("nodes"), link, Node, self._changed)
        self.leases: Table[Lease] = Table(bucket("leases"), link, Lease, self._lease_changed)
        self.domains: Table[Observed] = Table(bucket("domains"), link, Observed, self._domain_changed)
        self.owners: Table[Owner] = Table(bucket("owners"), link, Owner, self._owner_changed)
        self.last_leases: dict[str, Lease] = {}
        self.lease_listeners: list[Callable[[Lease], None]] = []
        self._sightings: dict[str, dict[str, Observed]] = {}
        self._named: dict[tuple[str, str], set[str]] = {}
        self._meant: dict[tuple[str, str], set[str]] = {}
        self._vacated: dict[str, str] = {}
        self._change = asyncio.Event()

    async def run(self) -> None:
        """Watch for ever."""
        async with anyio.create_task_group() as tasks:
            for table in (self.nodes, self.leases, self.domains, self.owners):
                tasks.start_soon(table.run)

    async def filled(self) -> None:
        """Wait until all buckets were read once."""
        for table in (self.nodes, self.leases, self.domains, self.owners):
            await table.filled()

    async def whereabouts_caught_up(self) -> None:
        """Wait until domains and owners show all that was written before. Raises `Uncertain`, `Unavailable`."""
        await self.owners.caught_up()
        await self.domains.caught_up()

    async def fleet_caught_up(self) -> None:
        """Wait until nodes and leases show all that was written before. Raises `Uncertain`, `Unavailable`."""
        await self.nodes.caught_up()
        await self.leases.caught_up()

    async def change(self) -> None:
        """Wait until anything has changed since the last such wait; for one task."""
        await self._change.wait()
        self._change.clear()

    def living(self, node: str) -> bool:
        """Tell whether a node has a lease."""
        return node in self.leases.rows

    def leases_by_node(self) -> dict[str, Lease]:
        """Return all living leases."""
        return {node: row.value for node, row in self.leases.rows.items()}

    def sightings(self, uuid: str) -> list[Observed]:
        """Return what each node shows of a domain."""
        return list(self._sightings.get(uuid, {}).values())

    def shows(self, node: str, uuid: str) -> bool:
        """Tell whether a node shows a domain."""
        return node in self._sightings.get(uuid, {})

    def vacated(self, node: str, uuid: str) -> bool:
        """Tell whether the domain's owner was seen to show it, and then no more."""
        return self._vacated.get(uuid) == node

    def called(self, project: str, name: str) -> set[str]:
        """Return the UUIDs of the domains that nodes show under a name in a project."""
        return set(self._named.get((project, name), ()))

    def coming(self, project: str, name: str) -> set[str]:
        """Return the UUIDs recorded under a name whose node does not show them yet, and was not seen to show them before."""
        recorded = ((uuid, self.owners.get(uuid)) for uuid in self._meant.get((project, name), ()))
        return {uuid for uuid, owner in recorded if owner is not None and not self._known_at(owner.node, uuid)}

    def several(self) -> list[str]:
        """Return the UUIDs that more than one node shows."""
        return [uuid for uuid, seen in self._sightings.items() if len(seen) > 1]

    def unowned(self) -> list[str]:
        """Return the UUIDs that some node shows and that have no owner record."""
        return [uuid for uuid in self._sightings if uuid not in self.owners.rows]

    def missing(self) -> dict[str, Owner]:
        """Return the owner records, by UUID, whose node does not show the domain."""
        return {uuid: row.value for uuid, row in self.owners.rows.items() if not self.shows(row.value.node, uuid)}

    def _known_at(self, node: str, uuid: str) -> bool:
        return self.shows(node, uuid) or self.vacated(node, uuid)

    def _changed(self, _key: str, _before: object, _after: object) -> None:
        self._change.set()

    def _lease_changed(self, node: str, before: Lease | None, after: Lease | None) -> None:
        if after is not None:
            self.last_leases[node] = after
            for listener in self.lease_listeners:
                listener(after)
        # a renewal is no news for those who wait for changes
        if before is None or after is None or before.epoch != after.epoch:
            self._changed(node, before, after)

    def _domain_changed(self, key: str, before: Observed | None, after: Observed | None) -> None:
        try:
            node, _, uuid = split_domain_key(key)
        except Invalid:
            return
        if before is not None and after is not None and _indexed(before) == _indexed(after):
            # As with most changes, and under load each command makes one: no index says anything else than before.
            self._sightings[uuid][node] = after
            self._changed(key, before, after)
            return
        if before is not None:
            self._forget(uuid, node, before)
        if after is not None:
            self._sightings.setdefault(uuid, {})[node] = after
            self._vacated.pop(uuid, None)
            if after.role == "owner":
                self._named.setdefault((after.project, after.name), set()).add(uuid)
        elif (owner := self.owners.get(uuid)) is not None and owner.node == node:
            self._vacated[uuid] = node
        self._changed(key, before, after)

    def _forget(self, uuid: str, node: str, before: Observed) -> None:
        seen = self._sightings[uuid]
        del seen[node]
        if not seen:
            del self._sightings[uuid]
        name = before.project, before.name
        if not any(name == (other.project, other.name) for other in seen.values()):
            _discard(self._named, name, uuid)

    def _owner_changed(self, uuid: str, before: Owner | None, after: Owner | None) -> None:
        if before is not None and before.name is not None:
            _discard(self._meant, (before.project, before.name), uuid)
        if after is not None and after.name is not None:
            self._meant.setdefault((after.project, after.name), set()).add(uuid)
        if after is None or (before is not None and before.id != after.id):
            self._vacated.pop(uuid, None)
        self._changed(uuid, before, after)


def _indexed(seen: Observed) -> tuple[str, str, str]:
    """Return what of a sighting the indexes are made of."""
    return seen.project, seen.name, seen.role


def _discard(index: dict[tuple[str, str], set[str]], key: tuple[str, str], uuid: str) -> None:
    uuids = index.get(key, set())
    uuids.discard(uuid)
    if not uuids:
        index.pop(key, None)
