"""Laws of the SQLite journal beyond the port: what shares a transaction, what waits for whom, how much is forgotten at once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from tests.contract.journals import NOW, PATIENCE_S, at, entry, event
from workers.journal import sqlite, tables
from workers.journal.file import JournalFile
from workers.journal.port import Advanced, Begun, Forgotten, JournalError, Received, Told
from workers.journal.sqlite import SqliteJournal

pytestmark = pytest.mark.anyio

Written = list[int]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Give the number of statements of each transaction that is written, but for the forgetting that goes on beside it."""
    numbers: Written = []
    original = JournalFile.write

    def write(self: JournalFile, statements: Sequence[tables.Statement]) -> None:
        if statements is not tables.SWEEP:
            numbers.append(len(statements))
        original(self, statements)

    monkeypatch.setattr(JournalFile, "write", write)
    return numbers


@pytest.fixture(params=[False, True], ids=["default", "durable"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    """Give an open journal, of each kind in turn."""
    journal = SqliteJournal(tmp_path / "journal.db", durable=request.param)
    journal.open(NOW)
    yield journal
    journal.close()


async def test_what_waits_in_one_turn_shares_a_transaction(journal: SqliteJournal, written: Written) -> None:
    """However many wait, it is one."""
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            for number in range(64):
                group.start_soon(journal.commit, Begun("default", f"c{number}"))
    assert written == [64]


async def test_what_comes_while_a_flush_is_held_up_goes_into_the_next(
    journal: SqliteJournal, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that has closed the gate holds it up, and its end lets it go on: what came meanwhile is written at once."""
    at_the_gate = anyio.Event()
    go_on = threading.Event()

    def checkpoint(self: JournalFile) -> bool:
        with self.gate:
            journal._post(at_the_gate.set)
            return go_on.wait(PATIENCE_S)

    monkeypatch.setattr(JournalFile, "checkpoint", checkpoint)
    monkeypatch.setattr(sqlite, "LOG_BYTES", 0)
    await journal.commit(Received(entry("c0", 0)))
    monkeypatch.setattr(sqlite, "LOG_BYTES", 10**9)
    confirmed: list[int] = []

    async def commit(number: int) -> None:
        await journal.commit(Received(entry(f"c{number}", number)))
        confirmed.append(number)

    with anyio.fail_after(PATIENCE_S):
        await at_the_gate.wait()
        del written[:]
        async with anyio.create_task_group() as group:
            for number in (1, 2, 3):
                group.start_soon(commit, number)
                await anyio.wait_all_tasks_blocked()
            assert confirmed == []
            assert journal.find("default", "c3") == entry("c3", 3)
            go_on.set()
    assert confirmed == [1, 2, 3]
    assert len(written) <= 2


async def test_what_waits_for_the_flush_after_this_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also once the one under way has landed."""
    second = threading.Event()
    original = JournalFile.write
    entered: list[int] = []

    def write(self: JournalFile, statements: Sequence[tables.Statement]) -> None:
        entered.append(len(entered))
        assert len(entered) == 1 or second.wait(PATIENCE_S)
        original(self, statements)

    journal = SqliteJournal(tmp_path / "journal.db", durable=True)
    journal.open(NOW)
    monkeypatch.setattr(JournalFile, "write", write)

    async def first() -> None:
        await journal.commit(Received(entry("a", 1)))
        assert [journal.find("default", id) for id in "ab"] == [entry("a", 1), entry("b", 2)]
        second.set()

    with anyio.fail_after(PATIENCE_S), closing(journal):
        async with anyio.create_task_group() as group:
            with journal._file.gate:
                group.start_soon(first)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(journal.commit, Received(entry("b", 2)))
                await anyio.wait_all_tasks_blocked()


async def test_a_commit_that_cannot_be_encoded_fails_alone(journal: SqliteJournal) -> None:
    """Who waits beside it is not concerned."""

    async def refused() -> None:
        with pytest.raises(UnicodeEncodeError):
            await journal.commit(Received(entry("a", 1, headers={"x": "\udcff"})))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(refused)
            group.start_soon(journal.commit, Received(entry("b", 2)))
    assert [journal.find("default", id) for id in "ab"] == [None, entry("b", 2)]


async def test_a_fault_of_our_own_reaches_those_who_wait(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever; the next commit is tried anew."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, anyio.fail_after(PATIENCE_S):
        patch.setattr(JournalFile, "write", broken)
        with pytest.raises(JournalError, match="could not be written: ZeroDivisionError"):
            await journal.commit(Received(entry("a", 1)))
    assert journal.find("default", "a") is None
    await journal.commit(Received(entry("a", 1)))
    assert journal.find("default", "a") == entry("a", 1)


async def test_a_log_that_has_grown_is_emptied_in_a_thread(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never on the loop; commits go on."""
    emptied = anyio.Event()
    threads: list[threading.Thread] = []
    original = JournalFile.checkpoint

    def checkpoint(self: JournalFile) -> bool:
        threads.append(threading.current_thread())
        done = original(self)
        journal._post(emptied.set)
        return done

    monkeypatch.setattr(JournalFile, "checkpoint", checkpoint)
    monkeypatch.setattr(sqlite, "LOG_BYTES", 100_000)
    with anyio.fail_after(PATIENCE_S):
        number = 0
        while not emptied.is_set():
            number += 1
            await journal.commit(Received(entry(f"c{number}", number, body=b"x" * 10_000)))
    assert number > 5
    assert threads
    assert threading.main_thread() not in threads


async def test_a_checkpoint_that_fails_is_tried_again(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits go on meanwhile: a log that cannot be emptied only grows."""
    tried: list[int] = []
    twice = anyio.Event()

    def checkpoint(_: JournalFile) -> bool:
        tried.append(1)
        if len(tried) == 2:
            journal._post(twice.set)
        raise JournalError("the disk is gone")

    monkeypatch.setattr(JournalFile, "checkpoint", checkpoint)
    monkeypatch.setattr(sqlite, "LOG_BYTES", 0)
    monkeypatch.setattr(sqlite, "RETRY_S", 0.001)
    with anyio.fail_after(PATIENCE_S):
        while not twice.is_set():
            await journal.commit(Told((event(1),)))


async def ledger(journal: SqliteJournal, size: int) -> Callable[[], int]:
    """Fill the ledger with old commands, all below the cursor; return what counts those not yet deleted."""
    await journal.commit(*(Received(entry(f"c{n}", n, phase="stored", event=at(n), ended=NOW - 100.0)) for n in range(1, size + 1)))
    await journal.commit(Advanced(size))

    def left() -> int:
        with closing(sqlite3.connect(journal._file.path)) as connection:
            (rows,) = connection.execute("SELECT count(*) FROM ledger").fetchone()
        return int(rows)

    return left


async def test_what_is_forgotten_is_gone_at_once_and_deleted_in_portions(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction deletes more than one, also after a restart; the same id may come again meanwhile."""
    monkeypatch.setattr(sqlite, "SWEEP_S", 3600.0)
    size = 3 * tables.PORTION + 1
    left = await ledger(journal, size)
    await journal.commit(Forgotten(NOW))
    assert left() == size - tables.PORTION
    assert [journal.find("default", f"c{number}") for number in range(1, size + 1)] == [None] * size
    again = Received(entry(f"c{size}", size + 1))
    await journal.commit(again)
    assert left() == size - tables.PORTION
    journal.close()
    recovery = journal.open(NOW)
    assert (recovery.unfinished, recovery.recent, recovery.above) == ([again.entry], [], {size + 1: True})
    for expected in (tables.PORTION + 1, 1, 1):
        journal._sweep()
        await journal.commit()
        assert left() == expected
    assert journal.find("default", f"c{size}") == again.entry


async def test_forgetting_goes_on_by_itself(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Portion after portion, until nothing is left, and then it ends."""
    finished = anyio.Event()
    original = JournalFile.forgetting

    def forgetting(self: JournalFile) -> bool:
        more = original(self)
        if not more:
            finished.set()
        return more

    monkeypatch.setattr(sqlite, "SWEEP_S", 0.001)
    left = await ledger(journal, 3 * tables.PORTION)
    monkeypatch.setattr(JournalFile, "forgetting", forgetting)
    await journal.commit(Forgotten(NOW))
    finished = anyio.Event()
    with anyio.fail_after(PATIENCE_S):
        await finished.wait()
    assert left() == 0
    assert journal._sweeping is None
