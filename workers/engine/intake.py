"""Log to ledger: pushes are hints, entered and begun at once; the cursor moves only by the log (PROTOCOL §3, inbound).

One task takes everything in, so what it enters is in order. At start, after each reconnect and when a push may have
been missed it reads the log from the cursor, and pushes wait until it has caught up. `audit`, called with each
renewal of the lease, compares the number of messages in the log with the number of pushes taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
from anyio.abc import TaskStatus

from orchestrator.bus.port import Bus, BusError, Message, Reader, Start
from orchestrator.log import get_logger
from orchestrator.protocol.subject import Subjects
from workers.engine.progress import Progress
from workers.journal.port import Advanced, Journal, Reset

MAX_PUSHES = 65_536
"""Pushes that may wait; beyond that they are dropped, and the log is read instead."""

PORTION = 256
AUDIT_BACKLOG = 2_000
"""Commands above the cursor from which the audit reads the log rather than wait for a quiet moment to count."""

COUNTS = 12
"""Times that an audit counts before it gives up: under load it takes some until none of the pushes is on its way."""

RETRY_S = 0.2

log = get_logger()

Enter = Callable[[Sequence[Message]], Awaitable[bool]]
"""Enters messages into the ledger and hands them on; known ones are ignored. True: read the log now, one of them waits for it."""

Reached = Callable[[], Awaitable[None]]
"""Takes that the log was read up to the cursor."""


class Intake:
    """Takes in what one node is told to run."""

    def __init__(
        self, bus: Bus, journal: Journal, subjects: Subjects, node: str, progress: Progress, enter: Enter, reached: Reached
    ) -> None:
        self._bus = bus
        self._journal = journal
        self._subjects = subjects
        self._node = node
        self._progress = progress
        self._enter = enter
        self._reached = reached
        self._pushes: deque[Message] = deque()
        self._wake = anyio.Event()
        self._missed = True
        self._audits: deque[anyio.Event] = deque()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Take in for ever; started once the log was read up to its end. Raises `JournalFull`."""
        async with self._bus.listen(self._subjects.deliveries(self._node), self._push), anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            session = await self._caught_up(0)
            task_status.started()
            while True:
                if self._missed or self._bus.link.session != session:
                    session = await self._caught_up(session)
                elif self._pushes:
                    await self._take()
                elif not self._audits:
                    self._wake = anyio.Event()
                    await self._wake.wait()
                if self._audits:
                    # However many pushes come, the lease does not wait for them.
                    await self._audit()

    async def audit(self) -> None:
        """Compare with the log, move the cursor, and return when that is done or could not be done."""
        done = anyio.Event()
        self._audits.append(done)
        self._wake.set()
        await done.wait()

    def _push(self, message: Message) -> None:
        if len(self._pushes) >= MAX_PUSHES:
            self._missed = True
        else:
            self._pushes.append(message)
        self._wake.set()

    async def _watch(self) -> None:
        session = 0
        while True:
            session = await self._bus.link.up(after=session)
            self._wake.set()

    async def _take(self) -> None:
        if await self._enter([self._pushes.popleft() for _ in range(min(PORTION, len(self._pushes)))]):
            self._missed = True

    async def _caught_up(self, session: int) -> int:
        """Read the log to its end in the present session, again and again until that succeeds; return the session."""
        while True:
            session = await self._bus.link.up()
            self._missed = False
            try:
                await self._read(await self._reader(self._progress.done + 1))
            except BusError as error:
                log.info("reading commands interrupted", reason=str(error) or type(error).__name__)
                self._missed = True
                await anyio.sleep(RETRY_S)
            else:
                return session

    async def _reader(self, sequence: int) -> Reader:
        filtered = self._subjects.runs(self._node)
        return await self._bus.reader(self._subjects.log_run, self._node, filtered, Start(sequence=sequence))

    async def _read(self, reader: Reader) -> None:
        left, reached = reader.pending, self._progress.done
        while left > 0:
            messages = await reader.take(min(left, PORTION))
            if not messages:
                break  # purged meanwhile: only what is done can be
            left -= len(messages)
            reached = messages[-1].sequence
            await self._enter(messages)
        await self._advance_to(reached)

    async def _advance_to(self, reached: int) -> None:
        if reached < self._progress.cursor:
            # The log ends before what we know: it lost its tail (power loss without sync), and sequences will come back.
            log.warning("the broker lost commands that were in its log", cursor=self._progress.cursor, end=reached)
            self._progress.rewind(reached)
            await self._journal.commit(Reset(), Advanced(reached))
        elif reached > self._progress.cursor:
            self._progress.advance(reached)
            await self._journal.commit(Advanced(reached))
        await self._reached()

    async def _audit(self) -> None:
        done = self._audits.popleft()
        try:
            await self._count()
        except BusError as error:
            log.info("audit interrupted", reason=str(error) or type(error).__name__)
        finally:
            done.set()

    async def _count(self) -> None:
        """Move the cursor if the log holds exactly what was pushed.

        Pushes that are on their way while the broker counts make the count ambiguous. Where each count was, the cursor stays
        for now, unless so much has gathered that reading is due. More in the log than ever was pushed is a hole: read.
        """
        for _ in range(COUNTS):
            if self._pushes:
                await self._take()
            taken, last = self._progress.above, self._progress.last
            reader = await self._reader(self._progress.cursor + 1)
            if reader.pending == taken:
                await self._advance_to(last)
                return
        if reader.pending > taken + len(self._pushes) or taken > AUDIT_BACKLOG:
            await self._read(reader)
