"""The node lease: proof that this worker, its bus and its hypervisors work (PROTOCOL §7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container

import anyio

from orchestrator.bus.port import BusError, Stale
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.node import Lease
from orchestrator.store.port import Entry, Store
from workers.engine.progress import Progress
from workers.engine.publisher import Superseded

RENEW_S = 5.0
RETRY_S = 0.2

log = get_logger()


class Taken(Exception):
    """Another worker serves this node; the message says which and what to do."""


class Unhealthy(Exception):
    """A hypervisor does not answer; the lease is not renewed."""


class LeaseKeeper:
    """Holds one node's lease."""

    def __init__(
        self,
        leases: Store,
        node: str,
        epoch: str,
        own_epochs: frozenset[str],
        progress: Progress,
        *,
        healthy: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`healthy` proves that this worker can work and writes what it learnt; it raises `Unhealthy`."""
        self._leases = leases
        self._node = node
        self._epoch = epoch
        self._own = own_epochs
        self._progress = progress
        self._healthy = healthy
        self._clock = clock
        self._revision = 0

    async def take(self) -> None:
        """Take the lease, over one of an own earlier epoch or a marker. Raises `Taken`; waits while the bus is away."""
        while True:
            try:
                self._revision = await self._write(self._takeable(await self._leases.get(self._node)))
            except BusError as error:
                # Also a lost race or an unknown outcome: look again.
                log.info("lease not yet taken", node=self._node, reason=str(error) or type(error).__name__)
                await anyio.sleep(RETRY_S)
            else:
                return

    async def run(self) -> None:
        """Renew for ever. Raises `Superseded` when another worker holds the lease."""
        while True:
            await anyio.sleep(RENEW_S)
            started = anyio.current_time()
            await self.renew()
            took_s = anyio.current_time() - started
            if took_s > RENEW_S:
                log.warning("renewing the lease is slow", seconds=round(took_s, 1))

    async def renew(self) -> None:
        """Prove that this worker can work, and renew; if it cannot, say so and let the lease run on. Raises `Superseded`."""
        try:
            await self._healthy()
            await self._renew()
        except (Unhealthy, BusError) as error:
            log.warning("lease not renewed", node=self._node, reason=str(error) or type(error).__name__)

    async def leave(self) -> None:
        """Give the lease back, so that the node is seen to be gone at once. Raises `BusError`."""
        await self._leases.remove(self._node, self._revision)

    async def _renew(self) -> None:
        try:
            self._revision = await self._write(self._revision)
        except Stale:
            try:
                self._revision = await self._write(self._takeable(await self._leases.get(self._node)))
            except Taken as error:
                raise Superseded(str(error)) from error

    def _takeable(self, entry: Entry | None) -> int:
        if entry is None or entry.value is None:
            return entry.revision if entry is not None else 0
        refuse_foreign(entry, self._node, {self._epoch, *self._own})
        return entry.revision

    async def _write(self, revision: int) -> int:
        lease = Lease(
            node=self._node,
            epoch=self._epoch,
            cursor=self._progress.cursor,
            done=self._progress.done,
            updated=timestamp(self._clock()),
        )
        return await self._leases.update(self._node, codec.encode(lease), revision)


def refuse_foreign(entry: Entry | None, node: str, own: Container[str]) -> None:
    """Raise `Taken` if the lease lives under an epoch that is none of `own`: its holder may live, and nothing tells that it does not."""
    if entry is None or entry.value is None:
        return
    epoch = codec.decode(entry.value, Lease).epoch
    if epoch not in own:
        raise Taken(
            f"node {node} is served by another worker (epoch {epoch}): stop it, wait 15 s if it died or this journal is not its own,"
            " or choose another name"
        )
