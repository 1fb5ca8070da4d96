"""The node's description of itself, and the proof of health that each renewal of the lease asks for (PROTOCOL §7)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.node import Allocated, Node
from orchestrator.store.port import Store
from workers.domain.observe import is_active
from workers.drivers.port import DriverError
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.lease import Unhealthy

HEALTH_S = 4.0
"""Seconds that a hypervisor has to prove that it answers."""

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
        *,
        labels: Mapping[str, str],
        version: str,
        clock: Callable[[], float],
    ) -> None:
        self._nodes = nodes
        self._node = node
        self._epoch = epoch
        self._hypervisors = hypervisors
        self._inventory = inventory
        self._labels = dict(labels)
        self._version = version
        self._clock = clock
        self._written: tuple[bytes, float] = (b"", 0.0)

    async def refresh(self) -> None:
        """Ask the hypervisors, and write the record if it says something new. Raises `Unhealthy`, `BusError`."""
        record = self._describe(await self._free_memory_kib())
        lasting = codec.encode(msgspec.structs.replace(record, updated="", free_memory_kib=0))
        now = time.monotonic()
        if lasting != self._written[0] or now - self._written[1] >= REFRESH_S:
            await self._nodes.put(self._node, codec.encode(record))
            self._written = (lasting, now)

    async def _free_memory_kib(self) -> int:
        if not all(hypervisor.connected for hypervisor in self._hypervisors):
            raise Unhealthy("a hypervisor is not connected")
        calls = {hypervisor.reads.submit(hypervisor.driver.free_memory_kib) for hypervisor in self._hypervisors}
        if calls:
            await asyncio.wait(calls, timeout=HEALTH_S)
        if not all(call.done() for call in calls):
            raise Unhealthy(f"a hypervisor did not answer within {HEALTH_S:g} s")
        try:
            return max((call.result() for call in calls), default=0)
        except DriverError as error:
            raise Unhealthy(str(error)) from error

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
            schedulable=True,
            updated=timestamp(self._clock()),
        )
