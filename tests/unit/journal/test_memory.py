"""Laws of the journal in memory that only it can show: a process that is killed between a call and its flush."""

from __future__ import annotations

import anyio
import pytest

from tests.contract.journals import NOW, PATIENCE_S, entry
from workers.journal.memory import MemoryDisk, MemoryJournal
from workers.journal.port import JournalError, Received

pytestmark = pytest.mark.anyio


async def test_what_waits_at_a_crash_is_lost_and_what_was_committed_stays() -> None:
    """Who waited is not told that it was written, and the journal is dead; the next one opens what is there."""
    disk = MemoryDisk()
    journal = MemoryJournal(disk)
    journal.open(NOW)
    await journal.commit(Received(entry("a", 1)))

    async def lost() -> None:
        with pytest.raises(JournalError, match="was killed"):
            await journal.commit(Received(entry("b", 2)))

    async def crash() -> None:
        assert journal.find("default", "b") == entry("b", 2)
        disk.crash()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(lost)
            group.start_soon(crash)
    with pytest.raises(JournalError, match="not open"):
        await journal.commit(Received(entry("c", 3)))
    assert MemoryJournal(disk).open(NOW).unfinished == [entry("a", 1)]


async def test_the_dead_hold_nothing() -> None:
    """Closing a journal whose process was killed does not take the disk from the one that holds it now."""
    disk = MemoryDisk()
    dead, living = MemoryJournal(disk), MemoryJournal(disk)
    dead.open(NOW)
    disk.crash()
    living.open(NOW)
    dead.close()
    await living.commit(Received(entry("a", 1)))
    assert disk.holder is living
