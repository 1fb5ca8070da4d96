"""The node's description of itself, and the proof of health that each renewal of the lease asks for (PROTOCOL §7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio
import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.node import Allocated, Node
from orchestrator.store.port import Store
from workers.domain.observe import is_active
from workers.domain.scope import Scope
from workers.engine.health import Health
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.lease import Unhealthy

REFRESH_S = 30.0
"""Seconds after which the record is written though only the free memory changed."""


class NodeRecord:
    """Keeps `virt_nodes` true for one node."""

    def __init__(
        self,
        nodes: Store,
        node: str,
        epoch: str,
        hypervisors: Sequence[Hypervisor],
        inventory: Inventory,
        health: Health,
        *,
        labels: Mapping[str, str],
        scope: Scope,
        version: str,
        clock: Callable[[], float],
    ) -> None:
        self._nodes = nodes
        self._node = node
        self._epoch = epoch
        self._hypervisors = hypervisors
        self._inventory = inventory
        self._health = health
        self._labels = dict(labels)
        self._scope = scope
        self._version = version
        self._clock = clock
        self._written: tuple[bytes, float] = (b"", 0.0)

    async def refresh(self) -> None:
        """Ask the hypervisors, and write the record if it says something new. Raises `Unhealthy`, `BusError`."""
        try:
            free_kib = await self._health.prove()
        except Unhealthy:
            await self._write(self._describe(0))
            raise
        await self._write(self._describe(free_kib))

    async def _write(self, record: Node) -> None:
        lasting = codec.encode(msgspec.structs.replace(record, updated="", free_memory_kib=0))
        now = anyio.current_time()
        if lasting != self._written[0] or now - self._written[1] >= REFRESH_S:
            await self._nodes.put(self._node, codec.encode(record))
            self._written = (lasting, now)

    def _describe(self, free_kib: int) -> Node:
        domains = self._inventory.known.values()
        running = [domain for domain in domains if is_active(domain)]
        abilities = [hypervisor.ability for hypervisor in self._hypervisors if hypervisor.ability is not None]
        return Node(
            node=self._node,
            epoch=self._epoch,
            version=self._version,
            hypervisors=[hypervisor.record() for hypervisor in self._hypervisors],
            arch=abilities[0].arch if abilities else "",
            cpus=max((ability.cpus for ability in abilities), default=0),
            memory_kib=max((ability.memory_kib for ability in abilities), default=0),
            free_memory_kib=free_kib,
            allocated=Allocated(vcpus=sum(domain.vcpus for domain in running), memory_kib=sum(domain.memory_kib for domain in running)),
            domain_count=len(domains),
            labels=self._labels,
            schedulable=not self._scope.labels,  # a domain made here would bear labels that nobody asked for
            projects=sorted(self._scope.projects),
            updated=timestamp(self._clock()),
        )
