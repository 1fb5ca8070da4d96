"""The leader's eye on leases: one that ended is told as `node.offline`, once, and by itself moves nothing (PROTOCOL §7)."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import msgspec

from orchestrator.bus.port import Bus, BusError, Start
from orchestrator.control.lease import counts
from orchestrator.engine.announcer import Announcer
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.pace import Pace
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Subjects

_OFFLINE = "node.offline"

_log = get_logger()


class _Told(msgspec.Struct, frozen=True):
    """The part of an earlier event that says of whom it told."""

    class Offline(msgspec.Struct, frozen=True):
        """Its data."""

        node: str
        epoch: str

    data: Offline


class Watchman:
    """Compares nodes with leases. `monotonic` gives the seconds of the loop's own clock."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        mirror: Mirror,
        announcer: Announcer,
        *,
        name: str,
        pace: Pace,
        monotonic: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._announcer = announcer
        self._reader = f"{name}-offline"
        self._pace = pace
        self._monotonic = monotonic
        self._told: set[str] = set()

    async def run(self) -> None:
        """Watch for ever."""
        await self._remember()
        while True:
            await self._look()
            await anyio.sleep(self._pace.tick)

    async def _look(self) -> None:
        link = self._bus.link
        session_s = self._monotonic() - link.since if link.connected else 0.0
        for name, row in list(self._mirror.nodes.rows.items()):
            living = self._mirror.living(name)
            if living:
                self._told.discard(name)
            elif name not in self._told and counts(living=living, session_s=session_s):
                await self._announcer.tell(_OFFLINE, {"event": "offline", "node": name, "epoch": row.value.epoch}, subject=name)
                self._told.add(name)

    async def _remember(self) -> None:
        """Learn what earlier leaders told of the epochs that the nodes still have."""
        while True:
            try:
                await self._read()
            except BusError as error:
                _log.info("watchman.again", reason=str(error) or type(error).__name__)
                await anyio.sleep(self._pace.retry)
                await self._bus.link.up()
            else:
                return

    async def _read(self) -> None:
        subject = self._subjects.evt(NONE, NONE, NONE, _OFFLINE)
        reader = await self._bus.reader(self._subjects.log_evt, self._reader, subject, Start())
        while messages := await reader.take(256):
            for message in messages:
                try:
                    told = codec.decode(message.body, _Told).data
                except Invalid:
                    continue
                row = self._mirror.nodes.rows.get(told.node)
                if row is not None and row.value.epoch == told.epoch:
                    self._told.add(told.node)
