"""Laws that take a process of its own to prove: kill -9, the lock, a disk that is full."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import IO

import pytest

from tests.contract.journals import NOW, at
from workers.journal.port import Locked
from workers.journal.sqlite import SqliteJournal

ROOT = Path(__file__).parents[3]
ROUNDS = 5

both = pytest.mark.parametrize("kind", ["default", "durable"])


@contextmanager
def child(mode: str, path: Path, kind: str = "default") -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Give a process that has opened the journal, and what it says; kill it in the end."""
    command = [sys.executable, "-m", "tests.unit.journal.child", mode, str(path), kind]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            yield process, process.stdout
        finally:
            process.kill()


@both
def test_what_was_confirmed_is_there_after_a_kill_at_any_instant(tmp_path: Path, kind: str) -> None:
    """All of it, in order, and of what was not confirmed nothing by halves; round after round on the same file."""
    path = tmp_path / "journal.db"
    random = Random(kind)  # the same instants in each run, as far as they can be chosen
    held = 0
    for _ in range(ROUNDS):
        with child("write", path, kind) as (process, said):
            confirmed = [int(said.readline()) for _ in range(random.randint(1, 400))]
            process.kill()
            confirmed += [int(line) for line in said]
        journal = SqliteJournal(path)
        recovery = journal.open(NOW)
        journal.close()
        commands = [entry.sequence for entry in recovery.unfinished]
        assert confirmed == list(range(held + 1, held + 1 + len(confirmed)))
        held = len(commands)
        assert commands == list(range(1, held + 1))
        assert held >= confirmed[-1]
        trimmed = 3 * (held // 50 * 50) - 60 if held >= 50 else 2
        assert [told.position for told in recovery.outbox] == [at(number) for number in range(trimmed + 1, 3 * held + 3)]
        assert recovery.last == at(3 * held + 2)


def test_the_lock_keeps_a_second_process_out_and_dies_with_the_first(tmp_path: Path) -> None:
    """The refusal names the holder; after kill -9 nothing is in the way."""
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    with child("hold", path) as (process, _):
        with pytest.raises(Locked, match=f"process {process.pid}"):
            journal.open(NOW)
        process.kill()
        process.wait()
        journal.open(NOW)
        journal.close()


@both
def test_a_full_disk_refuses_whole_flushes_until_there_is_room(tmp_path: Path, kind: str) -> None:
    """Here a limit on the size of files stands for the disk; what was refused is nowhere, what came after is kept."""
    path = tmp_path / "journal.db"
    with child("starve", path, kind) as (process, said):
        assert said.read().split(b"\n") == [b"kept 1", b"refused 10", b"found 1", b"kept 12", b""]
        assert process.wait() == 0
    journal = SqliteJournal(path)
    recovery = journal.open(NOW)
    journal.close()
    assert [entry.sequence for entry in recovery.unfinished] == [1, 12]
    assert [told.position.sequence for told in recovery.outbox] == [3, 4, 5, 36, 37, 38]
