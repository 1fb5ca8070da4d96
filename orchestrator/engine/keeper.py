"""The leader's bookkeeping: where it has come to is stored, and what lies behind is trimmed (PROTOCOL §3)."""

from __future__ import annotations

import anyio

from orchestrator.bus.port import Bus, BusError, Stale
from orchestrator.engine.announcer import Announcer
from orchestrator.engine.carrier import Carrier
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.pace import Pace
from orchestrator.engine.progress import Position, Progress
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.node import Reached
from orchestrator.protocol.subject import NONE, Subjects
from orchestrator.store.port import Store

KEY = "cmd"

_log = get_logger()


class Deposed(Exception):
    """Another coordinator leads now."""


class Cursor:
    """The stored position, held by one term: each write is a compare-and-set, so that a leader of before cannot write again."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store = store
        self._epoch = epoch
        self._revision = 0

    async def begin(self) -> Position:
        """Take it over and return what it says. Raises `Deposed` if a later term has it, `Uncertain`, `Unavailable`."""
        entry = await self._store.get(KEY)
        reached = Reached(cmd=0, run=0, evt=0, epoch=0) if entry is None or entry.value is None else codec.decode(entry.value, Reached)
        if reached.epoch > self._epoch:
            raise Deposed
        self._revision = 0 if entry is None else entry.revision
        position = Position(reached.cmd, reached.run, reached.evt)
        await self.store(position)
        return position

    async def store(self, position: Position) -> None:
        """Store a position. Raises `Deposed`, `Uncertain`, `Unavailable`."""
        value = codec.encode(Reached(cmd=position.cmd, run=position.run, evt=position.evt, epoch=self._epoch))
        try:
            self._revision = await self._store.update(KEY, value, self._revision)
        except Stale:
            # An attempt of ours whose outcome was unknown may have been stored.
            entry = await self._store.get(KEY)
            if entry is None or entry.value is None or codec.decode(entry.value, Reached).epoch != self._epoch:
                raise Deposed from None
            self._revision = await self._store.update(KEY, value, entry.revision)


class Keeper:
    """Stores the term's position when it has moved, then trims: `VIRT_CMD` up to it, of `VIRT_RUN` what each node says is done."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        mirror: Mirror,
        carrier: Carrier,
        announcer: Announcer,
        progress: Progress,
        cursor: Cursor,
        *,
        pace: Pace,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._carrier = carrier
        self._announcer = announcer
        self._progress = progress
        self._cursor = cursor
        self._pace = pace
        self._stored = progress.begun_at
        self._trimmed: dict[str, int] = {}

    async def run(self) -> None:
        """Keep for ever. Raises `Deposed`."""
        while True:
            with anyio.move_on_after(self._pace.tick):
                await self._progress.many()
            try:
                await self.keep()
            except BusError as error:
                _log.info("keeper.again", reason=str(error) or type(error).__name__)
                await anyio.sleep(self._pace.retry)

    async def keep(self) -> None:
        """Store and trim once. Raises `Deposed`, `Uncertain`, `Unavailable`, `Refused`."""
        await self._look_at_ends()
        position = self._progress.position
        if position != self._stored:
            await self._cursor.store(position)
            if position.cmd > self._stored.cmd:
                await self._bus.purge(self._subjects.log_cmd, self._subjects.cmds, position.cmd)
            self._stored = position
        for node, lease in self._mirror.leases_by_node().items():
            up_to = min(lease.done, self._stored.run)
            if up_to > self._trimmed.get(node, 0):
                await self._bus.purge(self._subjects.log_run, self._subjects.runs(node), up_to)
                self._trimmed[node] = up_to

    async def _look_at_ends(self) -> None:
        """Learn how far the logs have grown by what others put there, else nothing of it could ever be trimmed."""
        order = await self._bus.last(self._subjects.log_run, self._subjects.runs())
        event = await self._bus.last(self._subjects.log_evt, self._subjects.node_events(NONE))
        self._progress.note(
            max(self._carrier.reached, 0 if order is None else order.sequence),
            max(self._announcer.stored, 0 if event is None else event.sequence),
        )


