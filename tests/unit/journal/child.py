"""A process with a journal of its own, to be killed or starved: `python -m tests.unit.journal.child MODE PATH KIND`.

hold: open it, say so, and wait. write: commit for ever, and say each number once it is confirmed. starve: fill a
disk that has little room, ask for more, and say what came of it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from itertools import count
from pathlib import Path

import structlog

from tests.contract.journals import NOW, at, entry, event
from workers.journal import sqlite
from workers.journal.port import Change, JournalFull, Received, Stored, Told
from workers.journal.sqlite import SqliteJournal

WRITERS = 4


def say(word: object) -> None:
    """Tell the parent at once."""
    os.write(1, f"{word}\n".encode())


def commit_of(number: int) -> tuple[Change, ...]:
    """Return the changes by which a commit of this number is known: one command, three events, now and then a trim."""
    changes: list[Change] = [
        Received(entry(f"c{number}", number, body=b"x" * (number * 37 % 3000))),
        Told((event(3 * number), event(3 * number + 1))),
        Told((event(3 * number + 2),)),
    ]
    if number % 50 == 0:
        changes.append(Stored(at(3 * number - 60)))
    return tuple(changes)


async def write(journal: SqliteJournal, first: int) -> None:
    """Commit numbers from `first` on, a few at a time, until killed."""
    numbers = count(first)

    async def writer() -> None:
        for number in numbers:
            await journal.commit(*commit_of(number))
            say(number)

    await asyncio.gather(*(writer() for _ in range(WRITERS)))


async def starve(journal: SqliteJournal) -> None:
    """Commit until the disk is full, then with room again."""
    await journal.commit(*commit_of(1))
    say("kept 1")
    used = journal._file.log_size()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 8192, hard))
    outcomes = await asyncio.gather(*(journal.commit(*commit_of(number)) for number in range(2, 12)), return_exceptions=True)
    say(f"refused {sum(isinstance(outcome, JournalFull) for outcome in outcomes)}")
    say(f"found {sum(journal.find('default', f'c{number}') is not None for number in range(1, 12))}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await journal.commit(*commit_of(12))
    say("kept 12")


def main(mode: str, path: Path, kind: str) -> None:
    """Do what `mode` says."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sqlite.LOG_BYTES = 64 * 1024
    journal = SqliteJournal(path, durable=kind == "durable")
    recovery = journal.open(NOW)
    say("open")
    if mode == "hold":
        signal.pause()
    elif mode == "write":
        asyncio.run(write(journal, len(recovery.unfinished) + 1))
    else:
        asyncio.run(starve(journal))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
