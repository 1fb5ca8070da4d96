"""Which coordinator leads: a key that lives ten seconds, renewed every three by who holds it (PROTOCOL §2, `virt_cursors.leader`).

A leader acts for eight seconds from the beginning of its last renewal, and no longer; the key outlives that. A successor comes
only after the key is gone. So what two leaders publish does not mix, as long as the broker takes less than two seconds to store
what it was sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from orchestrator.bus.port import Bus, BusError, Stale
from orchestrator.control.lease import LEADER_SAFE_S, LEADER_TTL_S, may_take
from orchestrator.engine.keeper import KEY as CURSOR
from orchestrator.engine.keeper import Deposed
from orchestrator.engine.pace import Pace
from orchestrator.engine.table import Table
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.node import Leader, Reached
from orchestrator.store.port import Store

KEY = "leader"

_LEAVE_S = 1.0

_log = get_logger()

Term = Callable[[int], Awaitable[None]]
"""What a leader does, given its epoch; cancelled when it leads no more. Raises `Deposed` where it notices first."""


class Leadership:
    """One coordinator's part in it. `monotonic` gives the seconds of the loop's own clock."""

    def __init__(
        self,
        bus: Bus,
        cursors: Store,
        watched: Store,
        name: str,
        *,
        pace: Pace,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`watched` is the bucket `cursors` too, opened to be watched."""
        self._bus = bus
        self._cursors = cursors
        self._name = name
        self._pace = pace
        self._clock = clock
        self._monotonic = monotonic
        self._table: Table[Leader] = Table(watched, bus.link, Leader, self._changed, keys=KEY)
        self._change = anyio.Event()
        self._since = (0, 0, 0.0)
        self._tried = b""

    async def run(self, term: Term) -> None:
        """Stand by and lead, for ever; `term` runs while this coordinator leads."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._table.run)
            while True:
                epoch = await self._gained()
                _log.info("leadership.gained", coordinator=self._name, epoch=epoch)
                try:
                    await self._lead(epoch, term)
                finally:
                    await self._leave(epoch)
                _log.info("leadership.lost", coordinator=self._name, epoch=epoch)

    async def _gained(self) -> int:
        """Wait until this coordinator leads; return its epoch."""
        while True:
            try:
                epoch = await self._taken()
            except BusError as error:
                _log.info("leadership.again", reason=str(error) or type(error).__name__)
                await anyio.sleep(self._pace.retry)
                await self._bus.link.up()
                continue
            if epoch:
                return epoch
            with anyio.move_on_after(self._pace.renew):
                await self._change.wait()

    async def _taken(self) -> int:
        """Take leadership if it is free and return the epoch, else 0. Raises `Uncertain`, `Unavailable`, `Refused`."""
        entry = await self._cursors.get(KEY)
        held = None if entry is None or entry.value is None else codec.decode(entry.value, Leader)
        if entry is not None and held is not None and entry.value == self._tried:
            return held.epoch  # by an attempt of unknown outcome
        revision = 0 if entry is None else entry.revision
        if not may_take(held=held is not None, unchanged_s=self._unchanged_s(revision)):
            return 0
        cursor = await self._cursors.get(CURSOR)
        reached = 0 if cursor is None or cursor.value is None else codec.decode(cursor.value, Reached).epoch
        epoch = max(reached, 0 if held is None else held.epoch) + 1
        self._tried = self._record(epoch)
        try:
            await self._cursors.update(KEY, self._tried, revision, ttl_s=LEADER_TTL_S)
        except Stale:
            return 0
        return epoch

    def _unchanged_s(self, revision: int) -> float:
        """Return for how long the key has had this revision, as seen over one session."""
        now, session = self._monotonic(), self._bus.link.session
        if self._since[:2] != (revision, session):
            self._since = revision, session, now
        return now - self._since[2]

    async def _lead(self, epoch: int, term: Term) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hold, epoch, tasks.cancel_scope)
            try:
                await term(epoch)
            except* Deposed:
                _log.info("leadership.deposed", coordinator=self._name, epoch=epoch)
            tasks.cancel_scope.cancel()

    async def _hold(self, epoch: int, scope: anyio.CancelScope) -> None:
        """Renew until that is no longer possible; then end the term."""
        safe_until = self._monotonic() + LEADER_SAFE_S
        while self._monotonic() < safe_until:
            await anyio.sleep(self._pace.renew)
            began = self._monotonic()
            with anyio.move_on_after(safe_until - began):
                if not await self._renewed(epoch):
                    break
                safe_until = began + LEADER_SAFE_S
        scope.cancel()

    async def _renewed(self, epoch: int) -> bool:
        """Renew once the broker lets it be done; False if another leads."""
        while True:
            try:
                entry = await self._cursors.get(KEY)
                if entry is None or entry.value is None or not self._is_own(entry.value, epoch):
                    return False
                await self._cursors.update(KEY, self._record(epoch), entry.revision, ttl_s=LEADER_TTL_S)
            except Stale:
                return False
            except BusError as error:
                _log.info("leadership.not_renewed", reason=str(error) or type(error).__name__)
                await anyio.sleep(self._pace.retry)
            else:
                return True

    async def _leave(self, epoch: int) -> None:
        """Give leadership back if it is still ours, so that another takes it at once."""
        with anyio.move_on_after(_LEAVE_S, shield=True):
            try:
                entry = await self._cursors.get(KEY)
                if entry is not None and entry.value is not None and self._is_own(entry.value, epoch):
                    await self._cursors.remove(KEY, entry.revision)
            except BusError as error:
                _log.info("leadership.not_left", reason=str(error) or type(error).__name__)

    def _is_own(self, value: bytes, epoch: int) -> bool:
        leader = codec.decode(value, Leader)
        return (leader.coordinator, leader.epoch) == (self._name, epoch)

    def _record(self, epoch: int) -> bytes:
        return codec.encode(Leader(coordinator=self._name, epoch=epoch, updated=timestamp(self._clock())))

    def _changed(self, _key: str, _before: Leader | None, _after: Leader | None) -> None:
        self._change.set()
        self._change = anyio.Event()
