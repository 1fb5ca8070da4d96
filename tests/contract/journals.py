"""What each contract of the journal is run on: places that journals are kept in, and values to put there."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from orchestrator.protocol.domain import Observed
from workers.journal.memory import MemoryDisk, MemoryJournal
from workers.journal.port import Ended, Entry, Journal, OutboxEvent, Position
from workers.journal.sqlite import SqliteJournal

EPOCHS = ("01JD0000000000000000000000", "01JE0000000000000000000000")
UUID = "6f1c0000-0000-4000-8000-000000000001"
NOW = 1_700_000_000.0
PATIENCE_S = 10.0


class Place(Protocol):
    """Where one journal is kept, and the faults that tests need."""

    def journal(self) -> Journal:
        """Give a journal on what this place holds; not yet open."""

    def killed(self) -> Place:
        """Give the place that kill -9 at this instant would leave behind, free for the next."""

    def fill(self, journal: Journal) -> None:
        """Let the disk under an open journal have no room for anything large."""

    def free(self, journal: Journal) -> None:
        """Give it room again."""


class MemoryPlace:
    """A disk in memory."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    def journal(self) -> Journal:
        """Give a journal on the disk."""
        return MemoryJournal(self._disk)

    def killed(self) -> Place:
        """Take the disk from whoever holds it."""
        self._disk.crash()
        return self

    def fill(self, journal: Journal) -> None:
        """Fill the disk."""
        assert journal is self._disk.holder
        self._disk.full = True

    def free(self, journal: Journal) -> None:
        """Make room."""
        assert journal is self._disk.holder
        self._disk.full = False


class SqlitePlace:
    """A folder of its own. A process leaves at kill -9 what is in the files, so a copy of them is what it would leave."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._folder = folder
        self._durable = durable

    @property
    def path(self) -> Path:
        """The database's path."""
        return self._folder / "journal.db"

    def journal(self) -> Journal:
        """Give a journal on the file."""
        return SqliteJournal(self.path, durable=self._durable)

    def killed(self) -> Place:
        """Copy database and log."""
        folder = self._folder / "survivor"
        folder.mkdir()
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(self._folder / name, folder / name)
        return SqlitePlace(folder, durable=self._durable)

    def fill(self, journal: Journal) -> None:
        """Forbid the database to grow."""
        connection = _writer(journal)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def free(self, journal: Journal) -> None:
        """Let it grow again."""
        _writer(journal).execute("PRAGMA max_page_count = 1000000")


KINDS = ("memory", "sqlite", "durable")
"""The kinds of places there are."""


def place_of(kind: str, folder: Path) -> Place:
    """Return a new place of this kind; one on disk is in `folder`."""
    return MemoryPlace(MemoryDisk()) if kind == "memory" else SqlitePlace(folder, durable=kind == "durable")


@contextmanager
def opened(place: Place) -> Iterator[Journal]:
    """Give an open journal of this place, and close it in the end."""
    journal = place.journal()
    journal.open(NOW)
    try:
        yield journal
    finally:
        journal.close()


def _writer(journal: Journal) -> sqlite3.Connection:
    assert isinstance(journal, SqliteJournal)
    return journal._file._writer.connection


def entry(id: str, sequence: int, **fields: Any) -> Entry:
    """Return a command's entry as it is when received."""
    given: dict[str, Any] = {
        "project": "default",
        "subject": f"virt.v1.run.n1.default.{UUID}.start",
        "verb": "start",
        "uuid": UUID,
        "digest": "d" * 32,
        "body": b'{"timeout_s": 5}',
        "headers": {"traceparent": "00-1-2-01"},
        "deadline": NOW + 60.0,
    }
    return Entry(id=id, sequence=sequence, **(given | fields))


def at(number: int, epoch: int = 0) -> Position:
    """Return the position of an event."""
    return Position(EPOCHS[epoch], number)


def event(number: int, epoch: int = 0, body: bytes = b"{}") -> OutboxEvent:
    """Return an event for the outbox."""
    return OutboxEvent(at(number, epoch), f"virt.v1.evt.n1.default.{UUID}.lifecycle.started", body)


def ended(id: str, number: int, *, ended_at: float = NOW) -> Ended:
    """Return the end of a command by the event of this number."""
    return Ended("default", id, b'{"ok":true}', at(number), ended_at)


def observed(uuid: str = UUID, state: Any = "running") -> Observed:
    """Return a domain as a worker saw it."""
    return Observed(
        uuid=uuid,
        name="web1",
        project="default",
        node="n1",
        hypervisor="test:///default",
        type="test",
        state=state,
        reason="booted",
        persistent=True,
        autostart=False,
        vcpus=2,
        memory_kib=1024,
        labels={"tier": "web"},
        generation=1,
        incarnation=None,
        role="owner",
        epoch=EPOCHS[0],
        sequence="0000000000000001",
        updated="2026-01-01T00:00:00.000000Z",
    )
