"""Looks at single domains, each bounded in time: one that does not answer has one call out at a time, and holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from orchestrator.log import get_logger
from workers.domain.observe import unreadable
from workers.drivers.port import DriverError, Happening, Sighting
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.lane import done_within
from workers.engine.vigil import Call, Vigil, What

LOOK_S = 10.0
"""Seconds that a look at a domain may take before its state is told as `unknown`, and the mark of a new running instance."""

MARK_S = 2.0
"""Seconds for which a scan waits for marks of which none returns, before it tells these domains without."""

T = TypeVar("T")

log = get_logger()


class Silent(DriverError):
    """The domain did not answer in time. Nothing is known of it, and the call may still be out."""


class Crowded(DriverError):
    """So many calls hang that this one was not made."""


class Looks:
    """What reads single domains of one node."""

    def __init__(self, inventory: Inventory, vigil: Vigil) -> None:
        self._inventory = inventory
        self._vigil = vigil

    def stuck(self, uuid: str) -> Call | None:
        """Return the oldest call about a domain that has not returned in its time, None if it answers."""
        return self._vigil.stuck(uuid)

    async def asked(self, hypervisor: Hypervisor, uuid: str, call: Callable[[], T], what: What, within_s: float, verb: str = "") -> T:
        """Make a call that reads one domain. Raises `Silent`, `Crowded`, and what the call raises."""
        if self._vigil.out(hypervisor, uuid, what):
            raise Silent("an earlier call has not returned yet")
        if hypervisor.reads.full:
            raise Crowded(f"{hypervisor.uri}: too many calls hang")
        now = self._now()
        future = hypervisor.reads.submit(call)
        future.add_done_callback(_heeded)
        await done_within(future, within_s)
        if not future.done():
            if hypervisor.reads.withdraw(future):
                raise Crowded(f"{hypervisor.uri}: no thread was free within {within_s:g} s")
            self._vigil.late(Call(hypervisor=hypervisor, uuid=uuid, what=what, verb=verb, since=now[0], at=now[1]), future)
            raise Silent(f"no answer within {within_s:g} s")
        return future.result()

    async def at(self, hypervisor: Hypervisor, uuid: str, *, mark: bool = True) -> Sighting | None:
        """Look at a domain, and `mark` a new running instance; None where it is provably gone. Raises `DriverError`, also if it is silent.

        While a call that changes the domain is out, a mark would only wait for that.
        """
        sighting = await self.asked(hypervisor, uuid, lambda: hypervisor.look(uuid), "look", LOOK_S)
        if sighting is None or not mark or not hypervisor.unmarked(sighting):
            return sighting
        try:
            return await self.asked(hypervisor, uuid, lambda: hypervisor.marked(sighting), "mark", LOOK_S)
        except (Silent, Crowded) as error:
            log.info("running domain not marked", uuid=uuid, reason=str(error))
            return sighting

    async def seen(self, hypervisor: Hypervisor, uuid: str, happenings: Sequence[Happening], *, mark: bool = True) -> Sighting | None:
        """Return the domain now, None where it is provably gone; what cannot be read in time is `unknown`."""
        try:
            return await self.at(hypervisor, uuid, mark=mark)
        except DriverError as error:
            log.warning("domain cannot be read", uuid=uuid, reason=str(error))
        return self.unreadable(uuid, happenings)

    def unreadable(self, uuid: str, happenings: Sequence[Happening]) -> Sighting:
        """Return what stands for a domain that cannot be read: `unknown`, never gone."""
        known = self._inventory.known.get(uuid)
        nameless = Happening(uuid=uuid, name=known.name if known else "", event="", detail="", data={})
        return unreadable(known, happenings[-1] if happenings else nameless)

    async def all(self, hypervisor: Hypervisor) -> dict[str, Sighting]:
        """Scan a hypervisor, and mark new running instances but those that do not answer. Raises `DriverError`."""
        sightings = await hypervisor.lanes.supervision.submit(hypervisor.scan)
        found = {sighting.uuid: sighting for sighting in sightings}
        found.update(await self._marked(hypervisor, [one for one in sightings if hypervisor.unmarked(one)]))
        return found

    async def _marked(self, hypervisor: Hypervisor, sightings: Iterable[Sighting]) -> dict[str, Sighting]:
        now = self._now()
        calls = {
            hypervisor.reads.submit(lambda one=sighting: hypervisor.marked(one)): sighting  # type: ignore[misc]
            for sighting in sightings
            if not self._vigil.out(hypervisor, sighting.uuid, "mark")
        }
        for call in calls:
            call.add_done_callback(_heeded)
        pending = set(calls)
        while pending:
            returned = len(calls) - len(pending)
            _, pending = await asyncio.wait(pending, timeout=MARK_S)
            if len(calls) - len(pending) == returned:
                break  # those that are left do not answer
        for call, sighting in calls.items():
            if call in pending and not hypervisor.reads.withdraw(call):
                late = Call(hypervisor=hypervisor, uuid=sighting.uuid, what="mark", since=now[0], at=now[1])
                self._vigil.expect(late, call, LOOK_S)
        return {sighting.uuid: call.result() for call, sighting in calls.items() if call not in pending}

    def _now(self) -> tuple[float, float]:
        """Return Unix seconds, and the same by the loop's clock."""
        return self._vigil.clock(), asyncio.get_running_loop().time()


def _heeded(call: asyncio.Future[Any]) -> None:
    """Take notice of what a call raised, since who waited for it may have left."""
    if not call.cancelled():
        call.exception()
