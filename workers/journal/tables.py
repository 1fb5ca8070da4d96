"""The journal's tables: the schema and its steps, changes as SQL statements, rows as the port's values.

Made so that a commit touches few pages, for pages are what it costs. A phase never goes back: a command that the ledger
knows is entered no second time, and an outcome once fixed stays. `stored` is a column of its own, and phases are single
letters, so that a row keeps its size when only they change: it is then overwritten in place, and no index with it.

Two numbers in `state` stand for tables that would have to be written with each command. `above`: no row up to this one
has a known sequence above the cursor. `forget_*`: what was stored, ended before and not above this is forgotten, deleted or not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.protocol.domain import Observed
from workers.journal.fences import KEPT_S
from workers.journal.port import (
    Advanced,
    Begun,
    Change,
    Doubted,
    Ended,
    Entry,
    EpochBegun,
    Forgotten,
    JournalError,
    OutboxEvent,
    Phase,
    Position,
    Received,
    Recovery,
    Repeated,
    Reset,
    Stored,
    Told,
)

APPLICATION = 0x76697274
"""`virt` in ASCII: marks the file as a journal in its header."""

KEPT_EPOCHS = 64
"""Epochs that are kept; older ones leave when a new one begins."""

PORTION = 16
"""Commands that one transaction deletes at most: they lie far apart in the file, and the loop waits meanwhile."""

Plain = tuple[str, tuple[Any, ...]]
Statement = Plain | tuple[str, tuple[Any, ...], tuple[Plain, ...]]
"""SQL, its parameters, and what is to be done instead where it changed nothing."""

VERSION_1 = """
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), cursor INTEGER NOT NULL, above INTEGER NOT NULL, epoch TEXT, number INTEGER,
    forget_ended_before REAL, forget_up_to INTEGER
);
INSERT INTO state (one, cursor, above) VALUES (1, 0, 0);
CREATE TABLE ledger (
    row INTEGER PRIMARY KEY, project TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, deadline REAL NOT NULL,
    phase TEXT NOT NULL, stored INTEGER NOT NULL, epoch TEXT, number INTEGER, ended REAL NOT NULL,
    received BLOB NOT NULL, result BLOB NOT NULL,
    UNIQUE (project, id)
);
CREATE INDEX unfinished ON ledger (epoch, number) WHERE stored = 0;
CREATE INDEX recent ON ledger (deadline) WHERE stored = 1;
CREATE INDEX old ON ledger (ended, sequence) WHERE stored = 1;
CREATE TABLE repeats (sequence INTEGER PRIMARY KEY);
CREATE TABLE outbox (row INTEGER PRIMARY KEY, epoch TEXT NOT NULL, number INTEGER NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE domains (uuid TEXT PRIMARY KEY, observed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE fences (uuid TEXT PRIMARY KEY, fence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE epochs (epoch TEXT PRIMARY KEY) WITHOUT ROWID;
"""

VERSION_2 = """
ALTER TABLE state ADD COLUMN doubt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fences ADD COLUMN gone REAL;
"""

STEPS: tuple[str, ...] = (VERSION_1, VERSION_2)
"""What leads from each version of the schema to the next; the first starts from an empty file. A released step never changes."""


class Copy(msgspec.Struct, frozen=True, array_like=True):
    """What of an entry never changes and is never searched for, as kept in one blob; new fields go to the end, with a default."""

    subject: str
    verb: str
    uuid: str
    digest: str
    body: bytes
    headers: Mapping[str, str]
    fence: int


_encode = msgspec.msgpack.Encoder().encode
_copy = msgspec.msgpack.Decoder(Copy).decode
_observed = msgspec.msgpack.Decoder(Observed).decode

_LETTER: Mapping[Phase, str] = {"received": "r", "begun": "b", "ended": "e", "stored": "e"}
_PHASE: Mapping[str, Phase] = {"r": "received", "b": "begun", "e": "ended"}


def identify(connection: sqlite3.Connection, path: Path, newest: int = len(STEPS)) -> int:
    """Return the version of the file at `path`, 0 if it is empty. Raises `JournalError` for a newer or foreign file."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (version, application, empty) != (0, 0, True) and (not version or application != APPLICATION):
        raise JournalError(f"{path} is a database of another program; give the journal a path of its own")
    if version > newest:
        raise JournalError(
            f"journal {path} was made by a newer version of virtbus (format {version}, this one reads up to {newest}); run that version"
        )
    return version


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[str] = STEPS) -> None:
    """Bring the file at `path` to the newest version, one transaction a step. Raises as `identify`."""
    version = identify(connection, path, len(steps))
    for number, step in enumerate(steps[version:], start=version + 1):
        marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {number}"
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {step}; {marks}; COMMIT")
        except sqlite3.Error:
            rollback(connection)
            raise


def rollback(connection: sqlite3.Connection) -> None:
    """Undo the open transaction, if the database has not done so itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def statements(change: Change) -> Iterable[Statement]:
    """Return what `change` means in SQL. Raises `TypeError` or `ValueError` for values that cannot be encoded."""
    return _SQL[type(change)](change)


LAST_TOLD = "UPDATE state SET epoch = ?, number = ?"
"""Of several in one transaction only the last counts."""

_ENTER = (
    "INSERT OR IGNORE INTO ledger SELECT max(above, coalesce((SELECT max(row) FROM ledger), 0)) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
    " FROM state"
)
_FORGOTTEN = (
    "(stored = 1 AND coalesce(ended < (SELECT forget_ended_before FROM state), 0) AND sequence <= (SELECT forget_up_to FROM state))"
)
_YIELD = "DELETE FROM ledger WHERE project = ? AND id = ? AND " + _FORGOTTEN  # noqa: S608  fixed text
_REPEAT = (
    "INSERT OR IGNORE INTO repeats SELECT ? WHERE NOT EXISTS"
    " (SELECT 1 FROM ledger WHERE project = ? AND id = ? AND sequence = ? AND row > (SELECT above FROM state))"
)
# A fence that says nothing new, as most do, is not written: that would be one page more a commit.
_FENCE = (
    "INSERT INTO fences (uuid, fence) VALUES (?, ?)"
    " ON CONFLICT (uuid) DO UPDATE SET fence = excluded.fence, gone = NULL WHERE fence < excluded.fence"
)
_BACK = "UPDATE fences SET gone = NULL WHERE gone IS NOT NULL AND uuid IN (SELECT uuid FROM domains)"
_UNFENCE = "DELETE FROM fences WHERE gone < ?"
_GONE = "UPDATE fences SET gone = ? WHERE gone IS NULL AND uuid NOT IN (SELECT uuid FROM domains)"
_BEGIN = "UPDATE ledger SET phase = 'b' WHERE project = ? AND id = ? AND phase = 'r'"
_END = "UPDATE ledger SET phase = 'e', epoch = ?, number = ?, ended = ?, result = ? WHERE project = ? AND id = ? AND phase <> 'e'"
_STORE = "UPDATE ledger SET stored = 1 WHERE stored = 0 AND epoch IS NOT NULL AND (epoch, number) <= (?, ?)"
_LEAVE = (
    "DELETE FROM outbox WHERE row < coalesce((SELECT row FROM outbox WHERE (epoch, number) > (?, ?) ORDER BY row LIMIT 1),"
    " (SELECT max(row) + 1 FROM outbox))"
)
_ADVANCE = (
    "UPDATE state SET cursor = max(cursor, ?), above = coalesce((SELECT row - 1 FROM ledger WHERE row > above"
    " AND sequence > max(cursor, ?) ORDER BY row LIMIT 1), (SELECT max(row) FROM ledger), 0)"
)
_OLD_EPOCHS = "DELETE FROM epochs WHERE epoch NOT IN (SELECT epoch FROM epochs ORDER BY epoch DESC LIMIT ?)"
_RESET = "UPDATE state SET cursor = 0, doubt = 0, above = coalesce((SELECT max(row) FROM ledger), 0)"
_FORGET = (
    "UPDATE state SET forget_ended_before = max(coalesce(forget_ended_before, ?), ?), forget_up_to = max(coalesce(forget_up_to, 0), cursor)"
)
_OLD = (
    "SELECT row FROM ledger WHERE stored = 1 AND ended < (SELECT forget_ended_before FROM state)"
    " AND sequence <= (SELECT forget_up_to FROM state) ORDER BY ended, sequence, row LIMIT ?"
)
_SWEPT = f"UPDATE state SET forget_ended_before = NULL, forget_up_to = NULL WHERE NOT EXISTS ({_OLD})"  # noqa: S608  fixed text

SWEEP: tuple[Plain, ...] = (
    (f"DELETE FROM ledger WHERE row IN ({_OLD})", (PORTION,)),  # noqa: S608  fixed text
    (_SWEPT, (1,)),
)
"""Deletes one portion of what is being forgotten, and takes the mark away with the last."""


def _received(received: Received) -> Iterator[Statement]:
    entry = received.entry
    key = (entry.project, entry.id)
    event = (entry.event.epoch, entry.event.sequence) if entry.event is not None else (None, None)
    copy = Copy(entry.subject, entry.verb, entry.uuid, entry.digest, entry.body, entry.headers, entry.fence)
    place = (entry.sequence, entry.deadline, _LETTER[entry.phase], entry.phase == "stored")
    enter = _ENTER, (*key, *place, *event, entry.ended, _encode(copy), entry.result)
    # Only where the key is there already: what is forgotten yields to it, else this is a repeat.
    yield *enter, ((_YIELD, key), enter, (_REPEAT, (entry.sequence, *key, entry.sequence)))
    if entry.fence:
        yield _FENCE, (entry.uuid, entry.fence)


def _told(told: Told) -> Iterator[Statement]:
    place: tuple[str, int] | None = None
    for event in told.events:
        place = (event.position.epoch, event.position.sequence)
        yield "INSERT INTO outbox VALUES (NULL, ?, ?, ?, ?)", (*place, event.subject, event.body)
    if place is not None:
        yield LAST_TOLD, place
    for uuid, observed in told.domains.items():
        if observed is None:
            yield "DELETE FROM domains WHERE uuid = ?", (uuid,)
        else:
            yield "INSERT OR REPLACE INTO domains VALUES (?, ?)", (uuid, _encode(observed))


def _repeated(repeated: Repeated) -> Iterable[Statement]:
    return [("INSERT OR IGNORE INTO repeats VALUES (?)", (repeated.sequence,))]


def _begun(begun: Begun) -> Iterable[Statement]:
    return [(_BEGIN, (begun.project, begun.id))]


def _ended(ended: Ended) -> Iterable[Statement]:
    return [(_END, (ended.event.epoch, ended.event.sequence, ended.at, ended.result, ended.project, ended.id))]


def _stored(stored: Stored) -> Iterable[Statement]:
    place = (stored.up_to.epoch, stored.up_to.sequence)
    return [(_STORE, place), (_LEAVE, place)]


def _advanced(advanced: Advanced) -> Iterable[Statement]:
    return [(_ADVANCE, (advanced.cursor, advanced.cursor)), ("DELETE FROM repeats WHERE sequence <= ?", (advanced.cursor,))]


def _epoch_begun(begun: EpochBegun) -> Iterable[Statement]:
    return [("INSERT OR IGNORE INTO epochs VALUES (?)", (begun.epoch,)), (_OLD_EPOCHS, (KEPT_EPOCHS,))]


def _forgotten(forgotten: Forgotten) -> Iterable[Statement]:
    before = forgotten.ended_before
    return [(_FORGET, (before, before)), *SWEEP, (_BACK, ()), (_UNFENCE, (before - KEPT_S,)), (_GONE, (before,))]


def _reset(_: Reset) -> Iterable[Statement]:
    return [(_RESET, ()), ("DELETE FROM repeats", ())]


def _doubted(doubted: Doubted) -> Iterable[Statement]:
    return [("UPDATE state SET doubt = ?", (doubted.up_to,))]


_SQL: Mapping[type[Change], Callable[[Any], Iterable[Statement]]] = {
    Received: _received,
    Repeated: _repeated,
    Begun: _begun,
    Told: _told,
    Ended: _ended,
    Stored: _stored,
    Advanced: _advanced,
    EpochBegun: _epoch_begun,
    Forgotten: _forgotten,
    Reset: _reset,
    Doubted: _doubted,
}

_ENTRY = "SELECT project, id, sequence, deadline, phase, stored, epoch, number, ended, received, result FROM ledger WHERE "
_FIND = _ENTRY + "project = ? AND id = ? AND NOT " + _FORGOTTEN
_UNFINISHED = _ENTRY + "stored = 0 ORDER BY sequence, row"
_RECENT = _ENTRY + "stored = 1 AND deadline >= ? AND NOT " + _FORGOTTEN + " ORDER BY sequence, row"
_ABOVE = (
    "SELECT sequence, max(unfinished) FROM (SELECT sequence, stored = 0 AS unfinished FROM ledger WHERE row > ?"
    " UNION ALL SELECT sequence, 0 FROM repeats) WHERE sequence > ? GROUP BY sequence ORDER BY sequence"
)


def find(connection: sqlite3.Connection, project: str, id: str) -> Entry | None:
    """Return the ledger entry of this key."""
    row = connection.execute(_FIND, (project, id)).fetchone()
    return None if row is None else _as_entry(*row)


def forgetting(connection: sqlite3.Connection) -> bool:
    """Tell whether commands that are forgotten are still to be deleted."""
    return bool(connection.execute("SELECT forget_up_to IS NOT NULL FROM state").fetchone()[0])


def recover(connection: sqlite3.Connection, now: float) -> Recovery:
    """Return all that the file holds, as `Journal.open` says it."""
    cursor, above, epoch, number, doubt = connection.execute("SELECT cursor, above, epoch, number, doubt FROM state").fetchone()
    return Recovery(
        cursor=cursor,
        epochs=[row[0] for row in connection.execute("SELECT epoch FROM epochs ORDER BY epoch")],
        last=None if epoch is None else Position(epoch, number),
        above={sequence: bool(unfinished) for sequence, unfinished in connection.execute(_ABOVE, (above, cursor))},
        unfinished=[_as_entry(*row) for row in connection.execute(_UNFINISHED)],
        recent=[_as_entry(*row) for row in connection.execute(_RECENT, (now,))],
        outbox=[
            OutboxEvent(Position(epoch, number), subject, body)
            for epoch, number, subject, body in connection.execute("SELECT epoch, number, subject, body FROM outbox ORDER BY row")
        ],
        domains={uuid: _observed(observed) for uuid, observed in connection.execute("SELECT uuid, observed FROM domains")},
        fences=dict(connection.execute("SELECT uuid, fence FROM fences")),
        doubt=doubt,
    )


def _as_entry(
    project: str, id: str, sequence: int, deadline: float, phase: str, stored: int,
    epoch: str | None, number: int, ended: float, received: bytes, result: bytes,
) -> Entry:
    copy = _copy(received)
    return Entry(
        project=project,
        id=id,
        sequence=sequence,
        subject=copy.subject,
        verb=copy.verb,
        uuid=copy.uuid,
        digest=copy.digest,
        body=copy.body,
        headers=copy.headers,
        deadline=deadline,
        fence=copy.fence,
        phase="stored" if stored else _PHASE[phase],
        result=result,
        event=None if epoch is None else Position(epoch, number),
        ended=ended,
    )
