"""The journal's file: its lock, its connections, its transactions and checkpoints. Blocks, and knows of no loop.

SQLite in WAL mode. `write` appends to the log (`-wal`) beside the database; a checkpoint carries the log over into
the database and empties it. Without `durable` nothing that `write` does waits for the disk: only checkpoints sync, in
the order that keeps the database whole. `gate` is held by whoever writes to the log or empties it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec

from workers.journal import tables
from workers.journal.port import Damaged, Entry, JournalError, JournalFull, Locked, Recovery

CACHE_KIB = 16 * 1024
"""Memory that the writing connection keeps pages in."""

PAGE_BYTES = 2048
"""Size of a page. A commit costs by the page that it touches, and a small one is checked and copied sooner."""

BUSY_S = 0.1
"""How long a checkpoint waits for a reader, and a reader for a checkpoint."""

_PASSING = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
)
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CLOSED_TO_US = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})


class JournalFile:
    """One journal file, open between `open` and `close`."""

    def __init__(self, path: Path, *, durable: bool, rebuild: bool = False) -> None:
        """With `durable` each transaction is synced to the disk before `write` returns. `rebuild`: begin anew where it is damaged."""
        self.path = path
        self.set_aside: Path | None = None
        """Where a damaged file was put, if it was."""
        self.gate = threading.Lock()
        self._log = Path(f"{path}-wal")
        self._durable = durable
        self._rebuild = rebuild
        self._stack = ExitStack()
        self._writer: sqlite3.Cursor
        self._reader: sqlite3.Connection
        self._checkpointer: sqlite3.Connection

    def open(self, now: float) -> Recovery:
        """Lock the file, bring it up to date and return what it holds. Raises `Locked`, `JournalError`, `Damaged`."""
        with ExitStack() as stack:
            try:
                stack.callback(os.close, _lock(self.path))
                if self._rebuild and self._is_damaged(now):
                    self._put_aside(now)
                self._connect(stack)
                recovery = tables.recover(self._reader, now)
            except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
                raise in_plain_words(self.path, error) from error
            self._stack = stack.pop_all()
        return recovery

    def _is_damaged(self, now: float) -> bool:
        """Tell whether anything in the file cannot be read; that reads all of it. Raises what has another cause."""
        try:
            with ExitStack() as stack:
                self._connect(stack)
                tables.recover(self._reader, now)
                return self._reader.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            if isinstance(in_plain_words(self.path, error), Damaged):
                return True
            raise

    def _put_aside(self, now: float) -> None:
        """Rename the file and what belongs to it: somebody may want to look at what was in it."""
        self.set_aside = self.path.with_name(f"{self.path.name}.damaged-{int(now)}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{self.set_aside}{suffix}")

    def _connect(self, stack: ExitStack) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._checkpointer = stack.enter_context(closing(self._connection("NORMAL", BUSY_S)))
        tables.migrate(self._checkpointer, self.path)
        self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        writer = stack.enter_context(closing(self._connection("FULL" if self._durable else "OFF", BUSY_S if self._durable else 0.0)))
        writer.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._writer = writer.cursor()
        self._reader = stack.enter_context(closing(self._connection("OFF", BUSY_S)))

    def _connection(self, synchronous: str, timeout_s: float) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        try:
            tables.identify(connection, self.path)
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
        except BaseException:
            connection.close()
            raise
        return connection

    def write(self, statements: Iterable[tables.Statement]) -> None:
        """Write `statements` as one transaction; with `gate` held. Raises `JournalFull`, `JournalError`; then none of them counts."""
        try:
            self._transact(statements)
        except sqlite3.Error as error:
            raise in_plain_words(self.path, error) from error
        except (OverflowError, UnicodeError) as error:
            raise JournalError(f"journal {self.path} has no form for a value ({error}); nothing was written") from error

    def _transact(self, statements: Iterable[tables.Statement]) -> None:
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        try:
            for sql, parameters, *instead in statements:
                if not execute(sql, parameters).rowcount and instead:
                    for other in instead[0]:
                        execute(*other)
            execute("COMMIT")
        except BaseException:
            tables.rollback(self._writer.connection)
            raise

    def find(self, project: str, id: str) -> Entry | None:
        """Return the ledger entry of this key as last written. Raises `JournalError`."""
        try:
            return tables.find(self._reader, project, id)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise in_plain_words(self.path, error) from error

    def forgetting(self) -> bool:
        """Tell whether commands that are forgotten are still to be deleted. Raises `JournalError`."""
        try:
            return tables.forgetting(self._reader)
        except sqlite3.Error as error:
            raise in_plain_words(self.path, error) from error

    def log_size(self) -> int:
        """Return the bytes that the log takes up."""
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self) -> bool:
        """Carry the log over into the database and empty it; return whether it is empty. Raises `JournalError`.

        The bulk is carried over while others write. Then the gate is closed for the rest, so that the log ends
        somewhere. Between the two a reader holds its snapshot: else a writer that finds the whole log carried over begins
        it anew by itself, and without syncing its header, which a power cut could turn into a damaged database.
        """
        try:
            with closing(self._connection("OFF", BUSY_S)) as pin:
                pin.execute("BEGIN")
                pin.execute("SELECT cursor FROM state").fetchone()
                self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)")
                with self.gate:
                    pin.execute("COMMIT")
                    busy: int = self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            raise in_plain_words(self.path, error) from error
        return not busy

    def close(self) -> None:
        """Empty the log and release the lock. Raises `JournalError` if the log could not be emptied; then it waits for the next `open`."""
        with self._stack, self.gate:
            self._reader.close()
            self._writer.connection.close()
            try:
                self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # while the connection that syncs is there to do it
            except sqlite3.Error as error:
                raise in_plain_words(self.path, error) from error


def _lock(path: Path) -> int:
    """Return the descriptor that holds the lock; the kernel releases it with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise Locked(f"journal {path} is held by another worker (process {holder or 'unknown'}); stop that one first") from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def in_plain_words(path: Path, error: Exception) -> JournalError:
    """Return what `error` means for people: what is wrong with the journal at `path`, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _PASSING:
        return JournalFull(f"journal {path} cannot be written now ({error}); free space or mend the disk, nothing else is needed")
    if code in _CLOSED_TO_US or isinstance(error, OSError):
        return JournalError(f"journal {path} cannot be opened ({error}); the worker's user must be able to write there")
    if code in _DAMAGE or isinstance(error, msgspec.MsgspecError):
        return Damaged(
            f"journal {path} is damaged ({error}); start with --rebuild, which puts it aside and rebuilds what it knew from the logs,"
            " or move it and its -wal file away yourself"
        )
    return JournalError(f"journal {path} failed ({error}); the file need not be damaged: start again, and report this")
