"""The call that carries a command out: made in a thread, waited for to the deadline, and watched while it runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from orchestrator.log import get_logger
from orchestrator.protocol.error import Busy, Internal
from orchestrator.protocol.verb import Verb
from workers.engine.hypervisor import Hypervisor
from workers.engine.lane import Lane, done_within
from workers.engine.perform import Performed
from workers.engine.queue import DomainQueue
from workers.engine.vigil import SLOW_S, STUCK_S, Call, Vigil
from workers.journal.port import Entry

PATIENCE_S = 1.0
"""Seconds for which events wait for the call that may have caused them; and that a call has at least before it is late."""

log = get_logger()


def lane_of(hypervisor: Hypervisor, verb: Verb) -> Lane:
    """Return where the calls of a verb run. Raises `Busy` where so many hang that none could be made."""
    lane = hypervisor.lanes.long if verb.long else hypervisor.lanes.short
    if lane.full:
        raise Busy(f"{hypervisor.uri}: {lane.active} calls hang; look into it there, or try again later, with a new id")
    return lane


class Attempt:
    """One call, under way as soon as this is made. Calls cannot be cancelled, only left."""

    def __init__(
        self, vigil: Vigil, queue: DomainQueue, hypervisor: Hypervisor, entry: Entry, verb: Verb, call: Callable[[], Performed]
    ) -> None:
        self._vigil = vigil
        self._queue = queue
        self._entry = entry
        self._long = verb.long
        self._slow = verb.long
        self._call = Call(hypervisor=hypervisor, uuid=queue.uuid, what="run", verb=verb.name, id=entry.id, since=0.0, at=0.0)
        self._overrun = False
        self._begun: Call | None = None
        self._now = asyncio.get_running_loop().time
        self._made = call
        self._lane = lane_of(hypervisor, verb)
        self._future = self._lane.submit(self._make)

    @property
    def performed(self) -> Performed:
        """How it went; a fault in a driver ends the command that met it, with outcome unknown."""
        error = self._future.exception()
        if error is None:
            return self._future.result()
        log.error("driver fault", exc_info=error)
        return Performed(True, None, Internal(f"the driver failed: {type(error).__name__}", outcome="unknown"))

    async def returned(self, deadline: float | None, clock: Callable[[], float]) -> bool:
        """Wait for the call, telling the events that it holds up for long; False: the deadline came first. `clock` gives broker time."""
        while not self._future.done():
            left = PATIENCE_S if deadline is None else min(PATIENCE_S, deadline - clock())
            if left <= 0:
                return False
            await done_within(self._future, left)
            if not self._future.done():
                await self._watched()
        return True

    def withdrawn(self) -> bool:
        """Take the call back if no thread was free to make it. Else it is late, as soon as it has run for as long as any may."""
        self._overrun = True
        if self._lane.withdraw(self._future):
            return True
        self._judge()
        return False

    def _make(self) -> Performed:
        self._begun = msgspec.structs.replace(self._call, since=self._vigil.clock(), at=self._now())
        return self._made()

    async def _watched(self) -> None:
        begun = self._begun
        if begun is not None and not self._slow and self._now() - begun.at >= SLOW_S:
            self._slow = True
            await self._vigil.slow(begun)
        self._judge()
        if self._queue.restless and not self._future.done():
            await self._queue.tell(self._entry, mark=False)

    def _judge(self) -> None:
        """Say that the call is late, if it is."""
        begun, most_s = self._begun, PATIENCE_S if self._overrun else math.inf if self._long else STUCK_S
        if begun is not None and not self._future.done() and self._now() - begun.at >= most_s:
            self._vigil.late(begun, self._future)
