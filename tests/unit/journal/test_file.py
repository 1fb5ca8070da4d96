"""Laws of the journal's file: versions, damage, who may read it, what opening and emptying cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.contract.journals import EPOCHS, NOW, UUID, at, entry, event, observed
from workers.journal import tables
from workers.journal.file import JournalFile
from workers.journal.port import Advanced, Change, Damaged, JournalError, Received, Recovery, Told

FIXTURE = Path(__file__).with_name("version1.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a path for a journal, in a folder yet to be made."""
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def file(path: Path) -> Iterator[JournalFile]:
    """Give an open file."""
    file = JournalFile(path, durable=False)
    file.open(NOW)
    yield file
    file.close()


def write(file: JournalFile, *changes: Change) -> None:
    """Write changes as one transaction."""
    with file.gate:
        file.write([statement for change in changes for statement in tables.statements(change)])


def opened(path: Path, *, rebuild: bool = False) -> Recovery:
    """Open a file for a moment."""
    file = JournalFile(path, durable=False, rebuild=rebuild)
    recovery = file.open(NOW)
    file.close()
    return recovery


def database(path: Path, *scripts: str) -> None:
    """Make a database of these scripts."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for script in scripts:
            connection.executescript(script)


# -- versions


def test_a_file_of_version_1_is_read(path: Path) -> None:
    """The fixture was written by version 1 and never changes; whatever the schema is by now, this is what it holds."""
    database(path, FIXTURE.read_text())
    expected = Recovery(
        cursor=1,
        epochs=list(EPOCHS),
        last=at(1, 1),
        above={2: True, 3: False},
        unfinished=[entry("b", 2)],
        recent=[entry("a", 1, fence=2, phase="stored", result=b'{"ok":true}', event=at(2), ended=NOW)],
        outbox=[event(1, 1)],
        domains={UUID: observed()},
        fences={UUID: 2},
    )
    assert expected == opened(path)
    assert expected == opened(path)


def test_a_file_goes_up_one_version_after_the_other(path: Path) -> None:
    """Each step is a transaction: where one fails, the version before it stays and is usable."""
    database(path, FIXTURE.read_text())
    steps = (tables.VERSION_1, "ALTER TABLE state ADD COLUMN two INTEGER", "UPDATE state SET two = 2; UPDATE absent SET three = 3")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table: absent"):
            tables.migrate(connection, path, steps)
        assert not connection.in_transaction
        assert tables.identify(connection, path, 3) == 2
        assert connection.execute("SELECT cursor, two FROM state").fetchall() == [(1, None)]
        tables.migrate(connection, path, (*steps[:2], "UPDATE state SET two = 2"))
        assert tables.identify(connection, path, 3) == 3
        assert connection.execute("SELECT cursor, two FROM state").fetchall() == [(1, 2)]


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    """The sentence says what to do."""
    database(path, FIXTURE.read_text(), "PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"made by a newer version of virtbus .* run that version"):
        opened(path)
    assert before == path.read_bytes()


@pytest.mark.parametrize("script", ["CREATE TABLE songs (title TEXT)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"])
def test_a_database_of_another_program_is_refused_and_left_alone(path: Path, script: str) -> None:
    """However little tells it from a journal."""
    database(path, script)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="database of another program"):
        opened(path)
    assert before == path.read_bytes()


# -- damage and access


def test_a_file_that_is_no_database_is_called_damaged(path: Path) -> None:
    """The sentence says what to do; the lock is free again."""
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 1000)
    for _ in range(2):
        with pytest.raises(Damaged, match=r"is damaged .* start with --rebuild, .* or move it and its -wal file away"):
            opened(path)


def test_damage_is_found_when_it_is_read(path: Path) -> None:
    """A look-up or a commit that meets it says so."""
    file = JournalFile(path, durable=False)
    file.open(NOW)
    write(file, *(Received(entry(f"c{number}", number)) for number in range(500)))
    file.close()
    content = path.read_bytes()
    path.write_bytes(content[:2048] + b"\xa5" * (len(content) - 2048))
    with pytest.raises(JournalError, match="is damaged"):
        opened(path)


def test_a_damaged_file_is_put_aside_on_request(path: Path) -> None:
    """For whoever wants to look; the journal is empty then, and one that is whole."""
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 1000)
    assert opened(path, rebuild=True).epochs == []
    aside = path.with_name(f"journal.db.damaged-{int(NOW)}")
    assert aside.read_bytes() == b"no database at all" * 1000
    assert opened(path).epochs == []


def test_damage_that_opening_does_not_meet_is_found_on_request(path: Path) -> None:
    """A page in the middle of the ledger, torn: only who reads all of it finds that."""
    file = JournalFile(path, durable=False)
    file.open(NOW)
    ended = {"phase": "stored", "deadline": NOW - 1.0}
    write(file, *(Received(entry(f"c{number}", number, event=at(number), **ended)) for number in range(1, 2000)), Advanced(2000))
    file.close()
    content = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        page = connection.execute("SELECT pageno FROM dbstat WHERE name = 'ledger' AND pagetype = 'leaf'").fetchall()[20][0]
    content[(page - 1) * 2048 : page * 2048] = b"\xa5" * 2048
    path.write_bytes(content)
    assert opened(path).cursor == 2000
    assert opened(path, rebuild=True).cursor == 0


def test_a_sound_file_is_left_as_it_is_though_rebuilding_was_asked_for(path: Path) -> None:
    """So the option may stay in a unit file; and what is not damage is still refused."""
    database(path, FIXTURE.read_text())
    assert opened(path, rebuild=True).cursor == 1
    database(path, "PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="made by a newer version"):
        opened(path, rebuild=True)
    assert list(path.parent.glob("*.damaged-*")) == []


def test_a_row_that_cannot_be_decoded_is_damage(path: Path, file: JournalFile) -> None:
    """And no entry with something left out."""
    write(file, Received(entry("a", 1)))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE ledger SET received = x'00'")
    with pytest.raises(JournalError, match="is damaged"):
        file.find("default", "a")


def test_a_path_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    """With the reason of the system."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match=r"cannot be opened .* must be able to write there"):
        opened(tmp_path / "file" / "journal.db")


def test_only_the_owner_may_read(file: JournalFile) -> None:
    """Commands carry XML, and XML may carry secrets: also the log is for the owner alone."""
    write(file, Received(entry("a", 1)))
    modes = {found.name: oct(found.stat().st_mode & 0o777) for found in file.path.parent.iterdir()}
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock"), "0o600")


def test_a_value_that_no_column_holds_fails_alone(file: JournalFile) -> None:
    """Nothing of its transaction is written, and the next one is not held up."""
    with pytest.raises(JournalError, match="no form for a value"):
        write(file, Received(entry("a", 1)), Received(entry("b", 2**63)))
    write(file, Received(entry("c", 3)))
    assert [file.find("default", id) for id in "abc"] == [None, None, entry("c", 3)]


# -- cost


@pytest.mark.parametrize("query", [tables._FIND, tables._UNFINISHED, tables._RECENT, tables._OLD, tables._STORE, tables._ADVANCE])
def test_no_question_reads_the_whole_ledger(path: Path, file: JournalFile, query: str) -> None:
    """Each is answered from an index: a million rows must not slow a start."""
    assert file.path == path
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN " + query, (0,) * query.count("?")).fetchall()
    reads = [row[3] for row in plan if "ledger" in row[3]]
    assert reads
    assert [read for read in reads if "SCAN" in read and "USING INDEX unfinished" not in read] == []


def test_a_checkpoint_empties_the_log_and_keeps_what_it_held(file: JournalFile) -> None:
    """What was written is in the database then; without it the log only grows."""
    for number in range(50):
        write(file, Received(entry(f"c{number}", number, body=b"x" * 10_000)))
    assert file.log_size() > 500_000
    assert file.checkpoint()
    assert file.log_size() == 0
    assert file.find("default", "c49") == entry("c49", 49, body=b"x" * 10_000)


def test_a_checkpoint_that_a_reader_holds_up_says_so(path: Path, file: JournalFile) -> None:
    """Someone who reads the file keeps the log from being emptied, and nothing else; once gone, it is emptied."""
    write(file, Received(entry("a", 1)))
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN")
        stranger.execute("SELECT * FROM ledger").fetchall()
        write(file, Received(entry("b", 2)))
        assert not file.checkpoint()
        write(file, Received(entry("c", 3)))
    assert file.checkpoint()
    assert [file.find("default", id) for id in "abc"] == [entry("a", 1), entry("b", 2), entry("c", 3)]


def test_a_checkpoint_lets_others_write_while_it_carries_over(file: JournalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its end is behind the gate; what came meanwhile is appended to the log, which no writer begins anew by itself."""
    write(file, Told((event(1),)))
    sizes = [file.log_size()]

    @contextmanager
    def gate_after_a_write() -> Iterator[None]:
        monkeypatch.undo()
        write(file, Told((event(2),)))
        sizes.append(file.log_size())
        with file.gate:
            yield

    monkeypatch.setattr(file, "gate", gate_after_a_write())
    assert file.checkpoint()
    assert sizes[1] > sizes[0]
    assert file.log_size() == 0
    file.close()
    assert [told.position for told in file.open(NOW).outbox] == [at(1), at(2)]
