"""How many commands wait on each node, as far as this coordinator knows."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.bus.port import Bus, Start
from orchestrator.engine.mirror import Mirror
from orchestrator.protocol.node import Lease
from orchestrator.protocol.subject import Subjects

_FRESH_S = 1.0
"""Seconds for which a count by the broker is believed."""


class Backlog:
    """Counts what was routed here and is not ended; for a node without a lease it asks the broker what lies there."""

    def __init__(self, bus: Bus, subjects: Subjects, mirror: Mirror, reader: str, monotonic: Callable[[], float]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._reader = reader
        self._monotonic = monotonic
        self._open: dict[str, dict[tuple[str, str], int]] = {}
        self._counts: dict[str, tuple[float, int]] = {}
        mirror.lease_listeners.append(self._renewed)

    def enter(self, node: str, project: str, id: str, sequence: int) -> None:
        """Take note that a command lies in the node's log."""
        self._open.setdefault(node, {})[project, id] = sequence

    def ended(self, node: str, project: str, id: str) -> None:
        """Take note that it ended."""
        self._open.get(node, {}).pop((project, id), None)

    def known(self, node: str) -> int:
        """Return how many of those routed here have not ended."""
        return len(self._open.get(node, ()))

    async def waiting(self, node: str) -> int:
        """Return how many commands wait on the node. Raises `Uncertain`, `Unavailable`."""
        own = self.known(node)
        if self._mirror.living(node):
            return own
        counted, count = self._counts.get(node, (float("-inf"), 0))
        if self._monotonic() - counted > _FRESH_S:
            count = await self._count(node)
            self._counts[node] = self._monotonic(), count
        return max(own, count)

    async def _count(self, node: str) -> int:
        lease = self._mirror.last_leases.get(node)
        start = Start() if lease is None else Start(sequence=lease.done + 1)
        reader = await self._bus.reader(self._subjects.log_run, f"{self._reader}-{node}", self._subjects.runs(node), start)
        return reader.pending

    def _renewed(self, lease: Lease) -> None:
        """Forget what the node says is done: its result may have been missed."""
        waiting = self._open.get(lease.node)
        if waiting and min(waiting.values()) <= lease.done:
            self._open[lease.node] = {key: sequence for key, sequence in waiting.items() if sequence > lease.done}
