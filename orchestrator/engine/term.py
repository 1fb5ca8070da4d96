"""A term of leadership: what was done before is learnt first, then the log is followed and the house kept."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio

from orchestrator.bus.port import Bus, BusError
from orchestrator.engine.announcer import Announcer
from orchestrator.engine.carrier import Carrier
from orchestrator.engine.follower import Follower, LogLost
from orchestrator.engine.keeper import Cursor, Keeper
from orchestrator.engine.locator import Locator
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.pace import Pace
from orchestrator.engine.progress import Position, Progress
from orchestrator.engine.recovery import recover
from orchestrator.engine.router import Router
from orchestrator.log import get_logger
from orchestrator.protocol.subject import Subjects
from orchestrator.store.port import Store

_log = get_logger()


class Term:
    """What a leader does. `beside`: loops that run as long as the term. `name`: prefix of its readers' names."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        cursors: Store,
        mirror: Mirror,
        router: Router,
        locator: Locator,
        carrier: Carrier,
        announcer: Announcer,
        *,
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        name: str,
        pace: Pace,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._cursors = cursors
        self._mirror = mirror
        self._router = router
        self._locator = locator
        self._carrier = carrier
        self._announcer = announcer
        self._beside = beside
        self._name = name
        self._pace = pace

    async def run(self, epoch: int) -> None:
        """Lead until cancelled. Raises `Deposed`, alone or in a group, where a later term shows itself."""
        cursor = Cursor(self._cursors, epoch)
        begun_at: Position | None = None
        while True:
            progress = await self._begun(cursor, begun_at)
            try:
                await self._lead(cursor, progress)
            except* LogLost as lost:
                _log.error("term.log_lost", reason=str(lost.exceptions[0]))
            # What is kept is all that there is; ids keep what was done from being done again.
            begun_at = Position(0, 0, 0)

    async def _begun(self, cursor: Cursor, begun_at: Position | None) -> Progress:
        """Take over the cursor, or go back to `begun_at`, and learn what was done since. Raises `Deposed`."""
        while True:
            try:
                stored = await cursor.begin()
                return await recover(self._bus, self._subjects, self._name, stored if begun_at is None else begun_at)
            except BusError as error:
                _log.info("term.again", reason=str(error) or type(error).__name__)
            await anyio.sleep(self._pace.retry)
            await self._bus.link.up()

    async def _lead(self, cursor: Cursor, progress: Progress) -> None:
        follower = Follower(
            self._bus,
            self._subjects,
            self._router,
            self._locator,
            self._carrier,
            self._announcer,
            progress,
            name=self._name,
            pace=self._pace,
        )
        keeper = Keeper(
            self._bus, self._subjects, self._mirror, self._carrier, self._announcer, progress, cursor, pace=self._pace
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follower.run)
            tasks.start_soon(keeper.run)
            for loop in self._beside:
                tasks.start_soon(loop)
