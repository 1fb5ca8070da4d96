"""Laws of how a journal commits: together, in order, all or nothing; found at once, kept once confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.contract.journals import KINDS, NOW, PATIENCE_S, Place, at, ended, entry, event, opened, place_of
from workers.journal.port import Advanced, Begun, Change, Forgotten, Journal, JournalError, JournalFull, Received, Reset, Stored, Told

pytestmark = pytest.mark.anyio

LARGE = b"x" * 300_000


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give each kind of place in turn."""
    return place_of(request.param, tmp_path)


@pytest.fixture
def journal(place: Place) -> Iterator[Journal]:
    """Give an open journal that held nothing."""
    with opened(place) as journal:
        yield journal


async def test_what_waits_together_is_written_in_the_order_of_the_calls(place: Place, journal: Journal) -> None:
    """Across tasks: each finds what the one before has changed."""
    confirmed: list[int] = []

    async def commit(number: int, *changes: Change) -> None:
        await journal.commit(*changes)
        confirmed.append(number)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(commit, 0, Received(entry("a", 1)))
            group.start_soon(commit, 1, Begun("default", "a"))
            group.start_soon(commit, 2, Told((event(1),)), ended("a", 1))
            group.start_soon(commit, 3, Stored(at(1)))
            group.start_soon(commit, 4, Told((event(2),)))
    recovery = place.killed().journal().open(NOW)
    assert confirmed == [0, 1, 2, 3, 4]
    assert [(found.id, found.phase) for found in recovery.recent] == [("a", "stored")]
    assert recovery.outbox == [event(2)]


async def test_what_is_confirmed_survives_a_kill(place: Place, journal: Journal) -> None:
    """At the moment that `commit` returns."""
    await journal.commit(Received(entry("a", 1)), Told((event(1),)))
    recovery = place.killed().journal().open(NOW)
    assert (recovery.unfinished, recovery.outbox) == ([entry("a", 1)], [event(1)])


async def test_find_sees_what_is_called_and_not_confirmed(journal: Journal) -> None:
    """Each change counts from the call on, also on top of each other."""
    await journal.commit(Received(entry("a", 1)))
    steps: list[tuple[Change, ...]] = [
        (Begun("default", "a"),),
        (Told((event(1),)), ended("a", 1)),
        (Stored(at(1)),),
        (Advanced(1), Reset(), Forgotten(NOW + 1.0)),
        (Advanced(1), Forgotten(NOW + 1.0)),
    ]
    seen: list[str | None] = []

    async def look() -> None:
        found = journal.find("default", "a")
        seen.append(None if found is None else found.phase)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as calls:
            for changes in steps:
                calls.start_soon(journal.commit, *changes)
                calls.start_soon(look)
    assert seen == ["begun", "ended", "stored", "stored", None]


async def test_a_cancelled_wait_takes_nothing_back(place: Place, journal: Journal) -> None:
    """The changes are found, and written with the others."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.commit(Received(entry("a", 1)))
    assert scope.cancelled_caught
    assert journal.find("default", "a") == entry("a", 1)
    await journal.commit(Received(entry("b", 2)))
    assert place.killed().journal().open(NOW).unfinished == [entry("a", 1), entry("b", 2)]


async def test_a_full_disk_refuses_all_that_wait_and_nothing_is_written(place: Place, journal: Journal) -> None:
    """What was there before stays; nothing of the flush is found or recovered; with room again, commits work again."""
    await journal.commit(Received(entry("a", 1)))
    place.fill(journal)
    failures: list[JournalFull] = []

    async def refused(*changes: Change) -> None:
        with pytest.raises(JournalFull) as caught:
            await journal.commit(*changes)
        failures.append(caught.value)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(refused, Begun("default", "a"))
            group.start_soon(refused, Received(entry("b", 2, body=LARGE)))
            group.start_soon(refused, Received(entry("c", 3)))
    assert len({id(failure) for failure in failures}) == 3
    assert [journal.find("default", id) for id in "abc"] == [entry("a", 1), None, None]
    place.free(journal)
    await journal.commit(Received(entry("b", 2, body=LARGE)))
    assert place.killed().journal().open(NOW).unfinished == [entry("a", 1), entry("b", 2, body=LARGE)]


async def test_a_full_disk_ends_no_wait_that_was_cancelled(place: Place, journal: Journal) -> None:
    """Its error has nobody to go to, and is not reported as lost."""
    place.fill(journal)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.commit(Received(entry("a", 1, body=LARGE)))
    with pytest.raises(JournalFull):
        await journal.commit(Received(entry("b", 2, body=LARGE)))
    assert journal.find("default", "a") is None


async def test_closing_writes_what_waits(place: Place, journal: Journal) -> None:
    """And those who wait are told."""
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:

            async def close() -> None:
                journal.close()

            group.start_soon(journal.commit, Received(entry("a", 1)))
            group.start_soon(close)
    following = place.journal()
    assert following.open(NOW).unfinished == [entry("a", 1)]
    following.close()


async def test_a_closed_journal_refuses(journal: Journal) -> None:
    """Closing again does nothing; commits and look-ups say that it is closed."""
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="not open"):
        await journal.commit(Received(entry("a", 1)))
    with pytest.raises(JournalError, match="not open"):
        journal.find("default", "a")


async def test_a_commit_of_nothing_waits_for_those_before(place: Place, journal: Journal) -> None:
    """It is written like any other, and changes nothing."""
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(journal.commit, Received(entry("a", 1)))
            group.start_soon(journal.commit)
    assert place.killed().journal().open(NOW).unfinished == [entry("a", 1)]
