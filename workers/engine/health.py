"""Whether the hypervisors answer: each is asked with each renewal of the lease, and one that fails is told and does not end the others.

A node works as long as one of its hypervisors does (PROTOCOL §7: the lease is proof of a bus and a hypervisor that work).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from orchestrator.log import get_logger
from workers.drivers.port import DriverError
from workers.engine.hypervisor import Hypervisor
from workers.engine.lease import Unhealthy
from workers.engine.outbox import Draft, Outbox

HEALTH_S = 4.0
"""Seconds that a hypervisor has to prove that it answers."""

log = get_logger()


class Health:
    """Watches over the hypervisors of one node."""

    def __init__(self, node: str, hypervisors: Sequence[Hypervisor], outbox: Outbox) -> None:
        self._node = node
        self._hypervisors = hypervisors
        self._outbox = outbox
        self._proofs: dict[Hypervisor, asyncio.Future[int]] = {}

    async def prove(self) -> int:
        """Ask all that are connected; return the most free memory that one has, in KiB. Raises `Unhealthy` if none works.

        One that has not answered the last time is not asked again, so that a hypervisor that hangs does not use up its threads.
        """
        for hypervisor in self._hypervisors:
            if hypervisor.connected and hypervisor not in self._proofs:
                self._proofs[hypervisor] = hypervisor.lanes.supervision.submit(hypervisor.driver.free_memory_kib)
        if self._proofs:
            await asyncio.wait(self._proofs.values(), timeout=HEALTH_S)
        free = [kib for kib in [await self._judged(one, call) for one, call in list(self._proofs.items())] if kib is not None]
        if self._hypervisors and not free:
            raise Unhealthy("; ".join(f"{one.uri}: {one.ailment or 'not open yet'}" for one in self._hypervisors))
        return max(free, default=0)

    async def changed(self, hypervisor: Hypervisor) -> None:
        """Tell that a hypervisor fails, or works again, and which others do not. Raises `JournalFull`."""
        log.warning("hypervisor fails" if hypervisor.ailment else "hypervisor works", uri=hypervisor.uri, reason=hypervisor.ailment)
        data = {
            "node": self._node,
            "hypervisor": hypervisor.uri,
            "connected": not hypervisor.ailment,
            "reason": hypervisor.ailment,
            "lost": [one.uri for one in self._hypervisors if one.ailment],
        }
        await self._outbox.tell([Draft(name="node.degraded", data=data)])

    async def _judged(self, hypervisor: Hypervisor, call: asyncio.Future[int]) -> int | None:
        """Return the free memory that a hypervisor told, None if it did not."""
        if not call.done():
            await hypervisor.fails(f"no answer within {HEALTH_S:g} s")
            return None
        del self._proofs[hypervisor]
        try:
            free = call.result()
        except DriverError as error:
            await hypervisor.fails(str(error))
            return None
        if hypervisor.connected:
            await hypervisor.recovers()
        return free
