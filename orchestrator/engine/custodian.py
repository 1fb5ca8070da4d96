"""The leader's care for owner records: made for domains that have none, removed from domains that are no more (PROTOCOL §6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import msgspec

from orchestrator.bus.port import Bus, BusError
from orchestrator.control.custody import holders, residue
from orchestrator.control.locate import ADOPTED
from orchestrator.engine.announcer import Announcer
from orchestrator.engine.history import History
from orchestrator.engine.lanes import Lanes
from orchestrator.engine.locator import Locator
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.owners import Owners
from orchestrator.engine.pace import Pace
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Subjects

_LONGEST_S = 30.0
"""Seconds between two looks at the same record, at most."""

_DUPLICATE = "health.duplicate-domain"

_log = get_logger()


class _Missing:
    """An owner record whose domain is not shown: since when, and when to look next."""

    def __init__(self, owner: Owner, now: float) -> None:
        self.owner = owner
        self.since = now
        self.due = now
        self.wait_s = 1.0

    def looked(self, now: float) -> None:
        """Take note of a look that changed nothing."""
        self.due = now + self.wait_s
        self.wait_s = min(self.wait_s * 2, _LONGEST_S)


class _Duplicate(msgspec.Struct, frozen=True):
    """The part of an earlier event that says which nodes it named."""

    class Nodes(msgspec.Struct, frozen=True):
        """Its data."""

        nodes: list[str]

    data: Nodes


class Custodian:
    """Goes round whenever something changed, and now and then. `monotonic` gives the seconds of the loop's own clock."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        mirror: Mirror,
        lanes: Lanes,
        owners: Owners,
        locator: Locator,
        history: History,
        announcer: Announcer,
        *,
        pace: Pace,
        monotonic: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._lanes = lanes
        self._owners = owners
        self._locator = locator
        self._history = history
        self._announcer = announcer
        self._pace = pace
        self._monotonic = monotonic
        self._missing: dict[str, _Missing] = {}
        self._told: dict[str, list[str]] = {}

    async def run(self) -> None:
        """Care for ever."""
        while True:
            try:
                await self.round()
            except BusError as error:
                _log.info("custodian.again", reason=str(error) or type(error).__name__)
            with anyio.move_on_after(self._pace.tick):
                await self._mirror.change()
            await anyio.sleep(self._pace.tick / 10)  # what changes together is one round

    async def round(self) -> None:
        """Look at everything once. Raises `Uncertain`, `Unavailable`, `Refused`."""
        for seen in [holders(self._mirror.sightings(uuid)) for uuid in self._mirror.unowned()]:
            if len(seen) == 1:
                await self._adopt(seen[0])
        for uuid in self._mirror.several():
            await self._tell_duplicate(uuid, holders(self._mirror.sightings(uuid)))
        due = self._due()
        if due:
            await self._mirror.whereabouts_caught_up()
        for uuid, missing in due.items():
            await self._judge(uuid, missing)

    async def _adopt(self, seen: Observed) -> None:
        await self._owners.claim(seen.uuid, Owner(project=seen.project, node=seen.node, epoch=1, id=ADOPTED))

    def _due(self) -> dict[str, _Missing]:
        """Return the records to look at now; those of domains that a command of ours is at are left alone."""
        now = self._monotonic()
        missing = self._mirror.missing()
        self._missing = {
            uuid: known if (known := self._missing.get(uuid)) is not None and known.owner == owner else _Missing(owner, now)
            for uuid, owner in missing.items()
        }
        return {uuid: one for uuid, one in self._missing.items() if one.due <= now and not self._lanes.busy(uuid)}

    async def _judge(self, uuid: str, missing: _Missing) -> None:
        owner, adopted = missing.owner, missing.owner.id == ADOPTED
        ending = None if adopted else await self._history.ending(owner.project, uuid, owner.id)
        waiting = not adopted and await self._locator.may_be_coming(owner.node, owner.project, uuid)
        verdict = residue(
            adopted=adopted,
            vacated=self._mirror.vacated(owner.node, uuid),
            ending=ending,
            waiting=waiting,
            living=self._mirror.living(owner.node),
            missing_s=self._monotonic() - missing.since,
        )
        missing.looked(self._monotonic())
        # Looking took time: a command may have come for the domain, or the domain itself.
        if verdict == "remove" and not self._lanes.busy(uuid) and not self._mirror.shows(owner.node, uuid):
            await self._owners.release(uuid, owner.id)

    async def _tell_duplicate(self, uuid: str, seen: list[Observed]) -> None:
        nodes = [one.node for one in seen]
        if len(nodes) < 2 or self._told.get(uuid) == nodes:
            return
        project = seen[0].project
        last = await self._bus.last(self._subjects.log_evt, self._subjects.evt(NONE, project, uuid, _DUPLICATE))
        if last is None or _named(last.body) != nodes:
            told: dict[str, Any] = {"uuid": uuid, "name": seen[0].name, "nodes": nodes}
            await self._announcer.tell(_DUPLICATE, told, project=project, domain=uuid, domainname=seen[0].name)
        self._told[uuid] = nodes


def _named(body: bytes) -> list[str]:
    try:
        return codec.decode(body, _Duplicate).data.nodes
    except Invalid:
        return []
