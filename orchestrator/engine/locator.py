"""Finding where a domain lives, with a barrier on every miss, so that nothing written before is overlooked."""

from __future__ import annotations

import anyio

from orchestrator.bus.port import Bus
from orchestrator.control.locate import ADOPTED, Place, one_of, silent, whereabouts
from orchestrator.engine.history import History
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.outcomes import ANY, Outcomes
from orchestrator.engine.owners import Owners
from orchestrator.engine.recent import Recent
from orchestrator.protocol.command import id_of
from orchestrator.protocol.domain import Owner
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import VERBS


class Locator:
    """Looks through the mirror; where a record is missing it is made, where a domain is being made that is awaited.

    All methods raise `Uncertain` and `Unavailable`.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        mirror: Mirror,
        owners: Owners,
        history: History,
        outcomes: Outcomes,
        recent: Recent,
        *,
        pause_s: float,
    ) -> None:
        """Grant another coordinator `pause_s` seconds from recording a domain to storing the command that makes it."""
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._owners = owners
        self._history = history
        self._outcomes = outcomes
        self._recent = recent
        self._pause_s = pause_s

    async def resolve(self, project: str, name: str) -> str | None:
        """Return the UUID that a name means, None if it means none. Raises `Conflict` if several."""
        return one_of(name, await self.called(project, name))

    async def known(self, project: str, name: str) -> set[str]:
        """Return the UUIDs that a name may mean: of domains that are there, or recorded and not there yet."""
        known = self._mirror.called(project, name) | self._mirror.coming(project, name)
        if not known:
            await self._mirror.whereabouts_caught_up()
            known = self._mirror.called(project, name) | self._mirror.coming(project, name)
        return known

    async def called(self, project: str, name: str, *, but: str = "") -> set[str]:
        """Return the UUIDs of the domains of a name. Waits for those that are being made, and looks whether they came to be.

        but: a UUID that is left out.
        """
        await self.known(project, name)
        coming = self._mirror.coming(project, name) - {but}
        for uuid in coming:
            await self.made(project, uuid, "")
        if coming:
            await self._mirror.whereabouts_caught_up()
        for uuid in coming & self._mirror.coming(project, name):
            if await self._late(project, uuid):
                await anyio.sleep(self._pause_s)
                await self._mirror.whereabouts_caught_up()
        return self._mirror.called(project, name) - {but}

    async def _late(self, project: str, uuid: str) -> bool:
        """Tell whether a domain was made that its node does not show: its state may be a moment behind its event."""
        owner = self._mirror.owners.get(uuid)
        ending = None if owner is None else await self._history.ending(project, uuid, owner.id)
        return ending is not None and ending.result.ok and not ending.undone

    async def find(self, project: str, uuid: str) -> Place | None:
        """Return where a domain lives, None if nowhere. Raises `NotFound` (another project's), `Conflict` (on several nodes)."""
        place = self._place(project, uuid)
        if place is None:
            await self._mirror.whereabouts_caught_up()
            place = self._place(project, uuid)
        return place

    async def settle(self, project: str, uuid: str, id: str) -> Place | None:
        """Return where command `id` for a domain may be sent: its record is made, and no other command is making it. Raises as `find`.

        Waits as long as another command is making the domain: only once that ended it is sure where it lives.
        """
        place = await self.find(project, uuid)
        if place is None:
            return None
        if not place.recorded:
            stands = await self._owners.claim(uuid, Owner(project=project, node=place.node, epoch=place.fence, id=ADOPTED))
            return whereabouts(project, uuid, stands, ())
        if not self._mirror.shows(place.node, uuid):
            await self.made(project, uuid, id)
            await self._mirror.whereabouts_caught_up()
            place = self._place(project, uuid)
        return place

    async def made(self, project: str, uuid: str, id: str) -> None:
        """Wait until the command that made the domain's record has ended, or provably was never routed, or is `id` itself."""
        owner = self._mirror.owners.get(uuid)
        if owner is None or owner.id in (ADOPTED, id):
            return
        known = self._recent.find(project, owner.id)
        if known is not None and known.result is not None:
            return
        with self._outcomes.waiter(ANY, project, uuid, owner.id, since=self._history.oldest) as waiter:
            for pause in (self._pause_s, 0.0):
                if waiter.result is not None or await self._history.ending(project, uuid, owner.id) is not None:
                    return
                if await self.may_be_coming(owner.node, project, uuid):
                    await waiter.ended()
                    return
                # Its coordinator may be about to store it; more patience an orphan does not deserve.
                await anyio.sleep(pause)

    async def may_be_coming(self, node: str, project: str, uuid: str) -> bool:
        """Tell whether a command that makes the domain lies in the node's log: what is not ended is never trimmed."""
        for verb in VERBS.values():
            if verb.creates and await self._bus.last(self._subjects.log_run, self._subjects.run(node, project, uuid, verb.name)):
                return True
        return False

    async def leaving(self, project: str, uuid: str) -> bool:
        """Tell whether a domain is being undefined; then return once that ended and was looked at anew."""
        place = self._place(project, uuid)
        subject = "" if place is None else self._subjects.run(place.node, project, uuid, "undefine")
        last = await self._bus.last(self._subjects.log_run, subject) if subject else None
        if last is None:
            return False
        id = id_of(last.body, last.headers) or f"m-run-{last.sequence}"
        with self._outcomes.waiter(ANY, project, uuid, id, since=last.time) as waiter:
            if await self._history.ending(project, uuid, id) is None:
                await waiter.ended()
            elif self._mirror.sightings(uuid):
                await anyio.sleep(self._pause_s)  # its state may be a moment behind its event
        await self._mirror.whereabouts_caught_up()
        return True

    async def silent_nodes(self) -> list[str]:
        """Return the nodes that do not prove which domains they hold."""
        await self._mirror.fleet_caught_up()
        return silent((row.value for row in self._mirror.nodes.rows.values()), self._mirror.leases_by_node())

    def _place(self, project: str, uuid: str) -> Place | None:
        return whereabouts(project, uuid, self._mirror.owners.get(uuid), self._mirror.sightings(uuid))
