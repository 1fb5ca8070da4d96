"""Whatever happens, the journal in memory and the one in SQLite hold the same: neither was made from the other."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.journals import EPOCHS, NOW, UUID, at, ended, entry, event, observed
from workers.journal import sqlite, tables
from workers.journal.fences import KEPT_S
from workers.journal.memory import MemoryJournal
from workers.journal.port import (
    Advanced,
    Begun,
    Change,
    Doubted,
    EpochBegun,
    Forgotten,
    Journal,
    Received,
    Repeated,
    Reset,
    Stored,
    Told,
)
from workers.journal.sqlite import SqliteJournal

IDS = "abcde"

ids = st.sampled_from(IDS)
sequences = st.integers(1, 12)
times = st.sampled_from([NOW - 2.5, NOW - 1.0, NOW, NOW + 1.0])


class End(msgspec.Struct, frozen=True):
    """Becomes the next event, and a command's end by it; without a time, in the second of that event's number."""

    id: str
    at: float | None


class Sweep(msgspec.Struct, frozen=True):
    """Becomes the forgetting of what ended before the second of the last event."""


def fresh(name: str, sequence: int, deadline: float, fence: int) -> Received:
    """Return a new command."""
    return Received(entry(name, sequence, deadline=deadline, fence=fence))


def rebuilt(name: str, sequence: int, time: float) -> Received:
    """Return a command that ended at `time`, as it is rebuilt from its event."""
    return Received(entry(name, sequence, phase="stored", result=b"{}", event=at(1), ended=time))


usual: st.SearchStrategy[Change | End | Sweep] = st.one_of(
    st.builds(fresh, ids, sequences, times, st.integers(0, 3)),
    st.builds(Begun, st.just("default"), ids),
    st.builds(Repeated, sequences),
    st.builds(lambda state: Told((), {UUID: state}), st.sampled_from([None, observed(), observed(state="paused")])),
    st.builds(lambda number: Stored(at(number)), st.integers(1, 20)),
    st.builds(Advanced, sequences),
    st.builds(EpochBegun, st.sampled_from(EPOCHS)),
)
any_time = st.one_of(
    usual,
    st.builds(rebuilt, ids, sequences, times),
    st.builds(End, ids, times),
    st.builds(Forgotten, st.one_of(times, st.just(NOW + KEPT_S + 1.0))),
    st.builds(Doubted, sequences),
    st.just(Reset()),
)
in_time = st.one_of(usual, st.builds(End, ids, st.none()), st.just(Sweep()))


def histories(moves: st.SearchStrategy[Change | End | Sweep]) -> st.SearchStrategy[list[list[list[Change | End | Sweep]]]]:
    """Return what may happen in each turn of the loop: commits called one after the other, of one or several moves."""
    return st.lists(st.lists(st.lists(moves, min_size=1, max_size=3), min_size=1, max_size=4), min_size=1, max_size=8)


class Speller:
    """Turns moves into changes; events are told in the order of their numbers."""

    def __init__(self) -> None:
        self._number = 0

    def changes(self, commit: Sequence[Change | End | Sweep]) -> list[Change]:
        """Return the changes of one commit."""
        return [change for move in commit for change in self._spelt(move)]

    def _spelt(self, move: Change | End | Sweep) -> list[Change]:
        if isinstance(move, Sweep):
            return [Forgotten(NOW + self._number)]
        if not isinstance(move, End):
            return [move]
        self._number += 1
        time = NOW + self._number if move.at is None else move.at
        return [Told((event(self._number),)), ended(move.id, self._number, ended_at=time)]


async def live(journals: Sequence[Journal], history: Sequence[Sequence[Sequence[Change | End | Sweep]]]) -> None:
    """Let the same happen to all journals; after each call they find the same."""
    speller = Speller()

    async def look() -> None:
        first, *others = ([journal.find("default", id) for id in IDS] for journal in journals)
        assert all(found == first for found in others)

    for turn in history:
        async with asyncio.TaskGroup() as group:
            for commit in turn:
                spelt = speller.changes(commit)
                for journal in journals:
                    group.create_task(journal.commit(*spelt))
                group.create_task(look())
        await look()
    for journal in journals:
        journal.close()


def assert_alike(history: Sequence[Sequence[Sequence[Change | End | Sweep]]]) -> None:
    """Let it happen to one journal of each kind, and compare what they recover."""
    with tempfile.TemporaryDirectory() as folder:
        journals: list[Journal] = [MemoryJournal(), SqliteJournal(Path(folder) / "journal.db")]
        for journal in journals:
            journal.open(NOW)
        asyncio.run(live(journals, history))
        expected, actual = (journal.open(NOW) for journal in journals)
        for journal in journals:
            journal.close()
        assert expected == actual


@settings(max_examples=40, deadline=None)
@given(history=histories(any_time))
def test_the_same_changes_give_the_same_recovery(history: list[list[list[Change | End | Sweep]]]) -> None:
    """Whatever is committed, in whatever company, and found on the way."""
    assert_alike(history)


@settings(max_examples=40, deadline=None)
@given(history=histories(in_time))
def test_it_does_not_show_that_forgetting_takes_its_time(history: list[list[list[Change | End | Sweep]]]) -> None:
    """Where time only goes forward, what is forgotten and not yet deleted is as good as gone."""
    slowly = tuple((sql, tuple(1 for _ in parameters)) for sql, parameters in tables.SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SWEEP", slowly)
        patch.setattr(sqlite, "SWEEP_S", 3600.0)
        assert_alike(history)
