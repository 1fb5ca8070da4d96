"""The journal in one SQLite file: group commit, on the loop or, where it must wait for the disk, in a thread.

The rule is the same for both. A commit waits in a list; the first one schedules a flush for the loop's next turn; the
flush takes all that wait and writes them as one transaction; what comes meanwhile goes into the next. Without `durable`
the flush runs on the loop itself, since it only writes to the page cache (docs/decisions/0003). A second thread
empties the log now and then, so that no sync ever runs on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVarTuple

import msgspec

from orchestrator.log import get_logger
from workers.journal import tables
from workers.journal.file import JournalFile
from workers.journal.pending import Pending, moved
from workers.journal.port import Change, Entry, Forgotten, JournalError, Recovery

LOG_BYTES = 16 * 1024 * 1024
"""Size of the log from which it is emptied."""

CHECKPOINT_S = 30.0
"""Time after which the log is emptied, however small it is."""

RETRY_S = 1.0
"""Pause after a checkpoint that failed or was kept from emptying the log."""

SWEEP_S = 0.01
"""Pause between two portions of what is being forgotten."""

Arguments = TypeVarTuple("Arguments")


class Commit(msgspec.Struct, frozen=True):
    """A commit that waits; `done` is its caller's."""

    changes: tuple[Change, ...]
    statements: list[tables.Statement]
    done: asyncio.Future[None]


class SqliteJournal:
    """`Journal` in the SQLite file at `path`; `commit` and `find` are called on one loop, `open` and `close` from anywhere."""

    def __init__(self, path: Path, *, durable: bool = False, rebuild: bool = False) -> None:
        """With `durable`, what a commit confirmed survives the loss of power too, at the price of a disk sync a flush.

        With `rebuild` a damaged file is put aside, and an empty one begun.
        """
        self._file = JournalFile(path, durable=durable, rebuild=rebuild)
        self._durable = durable
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Commit] = []
        self._pending = Pending()
        self._cursor = 0
        self._forgetting = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._sweep_due = False
        self._scheduled = False
        self._flying = False
        self._work: queue.SimpleQueue[list[Commit] | None] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._log = get_logger().bind(journal=str(path))

    def open(self, now: float) -> Recovery:
        """Lock the file and return what it holds. Blocks. Raises `Locked`, `JournalError`."""
        recovery = self._file.open(now)
        if self._file.set_aside is not None:
            self._log.warning("journal.set_aside", damaged=str(self._file.set_aside))
            self._file.set_aside = None
        self._cursor = recovery.cursor
        self._pending = Pending()
        self._forgetting = True  # as far as is known: the one before may have been killed at it
        self._scheduled = self._flying = self._sweep_due = False
        self._sweeping = None
        self._stop.clear()
        self._open = True
        for run in (self._checkpoints, self._flushes) if self._durable else (self._checkpoints,):
            thread = threading.Thread(target=run, name=f"journal{run.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return recovery

    async def commit(self, *changes: Change) -> None:
        """Write `changes` as one transaction, together with those of all who wait. Raises `JournalFull`, `JournalError`.

        Also raises `TypeError` or `ValueError`, and writes nothing, for values that have no encoding.
        """
        if not self._open:
            raise JournalError(f"journal {self._file.path} is not open")
        loop = self._loop = asyncio.get_running_loop()
        commit = Commit(changes, [statement for change in changes for statement in tables.statements(change)], loop.create_future())
        self._waiting.append(commit)
        self._pending.add(changes)
        self._schedule()
        await commit.done

    def find(self, project: str, id: str) -> Entry | None:
        """Return a ledger entry as of the last `commit` called. Raises `JournalError`."""
        if not self._open:
            raise JournalError(f"journal {self._file.path} is not open")
        entry = self._file.find(project, id)
        if self._pending.touches(project, id):
            return self._pending.seen(entry, project, id, self._cursor)
        return entry

    def close(self) -> None:
        """Write what waits, empty the log, release the lock. Blocks. Idempotent. Nothing may commit meanwhile."""
        if not self._open:
            return
        self._open = False
        self._stop.set()
        self._wake.set()
        self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        with self._file.gate:
            rest = self._taken()
            error = self._write(rest) if rest else None
        self._post(_resolve, rest, error)
        try:
            self._file.close()
        except JournalError as failure:
            self._log.warning("journal.checkpoint_failed", error=str(failure))

    def _schedule(self) -> None:
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write all that waits, unless a flush is under way or the log is being emptied: the end of either comes here again."""
        self._scheduled = False
        if self._flying or not self._open or not (self._waiting or self._sweep_due):
            return
        if self._durable:
            self._flying = True
            self._work.put(self._taken())
        elif self._file.gate.acquire(blocking=False):
            try:
                batch = self._taken()
                error = self._write(batch)
            finally:
                self._file.gate.release()
            self._landed(batch, error)

    def _flushes(self) -> None:
        """Write in a thread what `_flush` hands over, until told to end."""
        while (batch := self._work.get()) is not None:
            with self._file.gate:
                error = self._write(batch)
            self._post(self._landed, batch, error)

    def _taken(self) -> list[Commit]:
        """Return what shall be written now; nothing means a portion of what is being forgotten."""
        batch, self._waiting = self._waiting, []
        self._sweep_due = False
        return batch

    def _write(self, batch: list[Commit]) -> JournalError | None:
        """Write the commits of `batch`; where there are none, go on forgetting. Return why it failed."""
        try:
            self._file.write(_lean([statement for commit in batch for statement in commit.statements]) if batch else tables.SWEEP)
        except JournalError as error:
            if not batch:
                self._log.warning("journal.forgetting_failed", error=str(error))
            return error
        except Exception as error:  # noqa: BLE001  the root of each flush: whoever waits must learn of it
            self._log.exception("journal.write_failed", commits=len(batch))
            return JournalError(f"journal {self._file.path} could not be written: {error!r}")
        return None

    def _landed(self, batch: list[Commit], error: JournalError | None) -> None:
        """Tell those who wait, and go on with those who came meanwhile."""
        self._flying = False
        self._pending = Pending()
        for commit in self._waiting:
            self._pending.add(commit.changes)
        _resolve(batch, error)
        if self._waiting:
            self._schedule()
        if error is None and self._open:
            self._learn(batch)

    def _learn(self, batch: list[Commit]) -> None:
        """Take note of what was written: where the cursor is, whether the log has grown, whether something is left to forget."""
        swept = not batch
        for commit in batch:
            for change in commit.changes:
                self._cursor = moved(self._cursor, change)
                swept = swept or isinstance(change, Forgotten)
        if self._file.log_size() > LOG_BYTES:
            self._wake.set()
        if swept:
            self._forgetting = self._file.forgetting()
        if self._forgetting and self._sweeping is None and self._loop is not None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        self._sweep_due = True
        self._flush()

    def _checkpoints(self) -> None:
        """Empty the log in a thread whenever it has grown or aged, until told to end."""
        while not self._stop.is_set():
            self._wake.wait(CHECKPOINT_S)
            self._wake.clear()
            if not self._stop.is_set() and self._file.log_size() and not self._emptied():
                self._stop.wait(RETRY_S)

    def _emptied(self) -> bool:
        try:
            return self._file.checkpoint()
        except JournalError as error:
            self._log.warning("journal.checkpoint_failed", error=str(error))
            return False
        finally:
            self._post(self._flush)

    def _post(self, callback: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Have the loop call `callback`, if there is one left: with the loop gone, nobody waits."""
        if self._loop is None or self._loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):  # closed since the line above
            self._loop.call_soon_threadsafe(callback, *arguments)


def _lean(statements: list[tables.Statement]) -> list[tables.Statement]:
    """Leave out what a later statement of the same transaction makes void."""
    last = max((at for at, statement in enumerate(statements) if statement[0] is tables.LAST_TOLD), default=-1)
    return [statement for at, statement in enumerate(statements) if at >= last or statement[0] is not tables.LAST_TOLD]


def _resolve(batch: list[Commit], error: JournalError | None) -> None:
    """Tell those who still wait; each gets an error of its own, since raising one writes into it."""
    for commit in batch:
        if commit.done.done():
            continue
        if error is None:
            commit.done.set_result(None)
        else:
            commit.done.set_exception(type(error)(*error.args))
