"""Laws of what a journal holds: each sentence of the port, in memory and in SQLite, with and without `durable`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.contract.journals import EPOCHS, KINDS, NOW, UUID, Place, at, ended, entry, event, observed, opened, place_of
from workers.journal.fences import KEPT_S
from workers.journal.port import (
    Advanced,
    Begun,
    Change,
    Doubted,
    EpochBegun,
    Forgotten,
    Journal,
    Locked,
    Received,
    Recovery,
    Repeated,
    Reset,
    Stored,
    Told,
)

pytestmark = pytest.mark.anyio

OTHER = "6f1c0000-0000-4000-8000-000000000002"


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give each kind of place in turn."""
    return place_of(request.param, tmp_path)


@pytest.fixture
def journal(place: Place) -> Iterator[Journal]:
    """Give an open journal that held nothing."""
    with opened(place) as journal:
        yield journal


def recovered(place: Place, journal: Journal, now: float = NOW) -> Recovery:
    """Return what the next journal of this place finds at `now`."""
    journal.close()
    following = place.journal()
    recovery = following.open(now)
    following.close()
    return recovery


async def finish(journal: Journal, id: str, sequence: int, number: int, *, ended_at: float = NOW, deadline: float = NOW + 60.0) -> None:
    """Let a command go all the way until its terminal event, of this number, is stored."""
    await journal.commit(Received(entry(id, sequence, deadline=deadline)))
    await journal.commit(Begun("default", id))
    await journal.commit(Told((event(number),)), ended(id, number, ended_at=ended_at))
    await journal.commit(Stored(at(number)))


# -- opening


def test_a_new_journal_holds_nothing(place: Place) -> None:
    """Cursor 0, no epoch, no event, no command."""
    journal = place.journal()
    nothing = Recovery(cursor=0, epochs=[], last=None, above={}, unfinished=[], recent=[], outbox=[], domains={}, fences={})
    assert nothing == journal.open(NOW)
    journal.close()


def test_a_journal_has_one_holder(place: Place, journal: Journal) -> None:
    """A second one is refused while the first is open, and served after."""
    with pytest.raises(Locked, match="held by another"):
        place.journal().open(NOW)
    journal.close()
    second = place.journal()
    second.open(NOW)
    second.close()


async def test_a_closed_journal_can_be_opened_again(journal: Journal) -> None:
    """It holds what it held."""
    await journal.commit(Advanced(7))
    journal.close()
    assert journal.open(NOW).cursor == 7
    await journal.commit(Advanced(8))
    journal.close()
    assert journal.open(NOW).cursor == 8


# -- commands


async def test_a_received_command_is_unfinished_and_its_sequence_known(place: Place, journal: Journal) -> None:
    """It comes back with every field as received."""
    received = entry("a", 5, fence=3, body=b"\x00\xff" * 1000, deadline=NOW + 0.125)
    await journal.commit(Received(received))
    assert received == journal.find("default", "a")
    recovery = recovered(place, journal)
    assert ([received], {5: True}) == (recovery.unfinished, recovery.above)


async def test_unfinished_commands_come_in_order_of_sequence(place: Place, journal: Journal) -> None:
    """Whatever the order in which they came, and however far each is."""
    await journal.commit(Received(entry("c", 9)), Received(entry("a", 3)), Received(entry("b", 5)))
    await journal.commit(Begun("default", "c"))
    await journal.commit(Told((event(1),)), ended("b", 1))
    unfinished = recovered(place, journal).unfinished
    assert [(found.id, found.phase) for found in unfinished] == [("a", "received"), ("b", "ended"), ("c", "begun")]


async def test_a_command_that_is_known_is_entered_no_second_time(place: Place, journal: Journal) -> None:
    """The first stays as it is; the further copy's sequence is known, and finished."""
    first = entry("a", 5)
    await journal.commit(Received(first))
    await journal.commit(Received(entry("a", 8, body=b"other")))
    recovery = recovered(place, journal)
    assert ([first], {5: True, 8: False}) == (recovery.unfinished, recovery.above)


async def test_the_sequence_of_a_repeat_is_known_and_finished(place: Place, journal: Journal) -> None:
    """Nothing else happens; a sequence that is an unfinished command's own stays unfinished."""
    await journal.commit(Received(entry("a", 5)))
    await journal.commit(Repeated(8), Repeated(5))
    assert recovered(place, journal).above == {5: True, 8: False}


async def test_commands_are_told_apart_by_project_and_id(journal: Journal) -> None:
    """The same id in another project is another command."""
    await journal.commit(Received(entry("a", 1)), Received(entry("a", 2, project="shop")))
    await journal.commit(Begun("shop", "a"))
    found = [
        (project, known.phase if known is not None else None)
        for project in ("default", "shop", "x")
        for known in [journal.find(project, "a")]
    ]
    assert found == [("default", "received"), ("shop", "begun"), ("x", None)]


async def test_an_ended_command_keeps_its_first_outcome(place: Place, journal: Journal) -> None:
    """Result, event and time are fixed; a second end and a late begin change nothing."""
    await journal.commit(Received(entry("a", 1)), Received(entry("b", 2)))
    await journal.commit(Told((event(1),)), ended("a", 1, ended_at=NOW + 0.5))
    await journal.commit(Told((event(2),)), ended("a", 2))
    await journal.commit(Begun("default", "a"))
    expected = entry("a", 1, phase="ended", result=b'{"ok":true}', event=at(1), ended=NOW + 0.5)
    assert expected == journal.find("default", "a")
    assert [expected, entry("b", 2)] == recovered(place, journal).unfinished


async def test_what_is_said_of_an_unknown_command_changes_nothing(place: Place, journal: Journal) -> None:
    """No entry comes of it."""
    await journal.commit(Begun("default", "a"), ended("a", 1))
    assert journal.find("default", "a") is None
    assert recovered(place, journal).unfinished == []


async def test_a_command_may_be_entered_with_its_outcome(place: Place, journal: Journal) -> None:
    """A ledger is rebuilt so from the events of a node that lost its journal."""
    rebuilt = entry("a", 4, phase="stored", result=b"{}", event=at(9), ended=NOW - 1.0)
    await journal.commit(Received(rebuilt))
    recovery = recovered(place, journal)
    assert ([], [rebuilt], {4: False}) == (recovery.unfinished, recovery.recent, recovery.above)


# -- events


async def test_the_outbox_holds_events_in_order_until_they_are_stored(place: Place, journal: Journal) -> None:
    """Across commits and epochs; the last one told is remembered also when the outbox is empty."""
    await journal.commit(Told((event(1), event(2))))
    await journal.commit(Told((event(3), event(1, 1, b"x" * 5000))))
    await journal.commit(Stored(at(2)))
    recovery = recovered(place, journal)
    assert ([event(3), event(1, 1, b"x" * 5000)], at(1, 1)) == (recovery.outbox, recovery.last)
    following = place.journal()
    following.open(NOW)
    await following.commit(Stored(at(1, 1)))
    recovery = recovered(place, following)
    assert ([], at(1, 1)) == (recovery.outbox, recovery.last)


async def test_domains_are_as_last_told(place: Place, journal: Journal) -> None:
    """A later telling replaces, None removes."""
    await journal.commit(Told((event(1),), {UUID: observed(), OTHER: observed(OTHER)}))
    await journal.commit(Told((event(2),), {UUID: observed(state="paused"), OTHER: None}))
    assert {UUID: observed(state="paused")} == recovered(place, journal).domains


async def test_commands_are_stored_with_the_event_that_ended_them(place: Place, journal: Journal) -> None:
    """Those up to the position, in whatever epoch; the others wait on."""
    await journal.commit(*(Received(entry(id, sequence)) for sequence, id in enumerate("abcd", start=1)))
    await journal.commit(Told((event(1), event(2), event(3))), ended("a", 1), ended("b", 3))
    await journal.commit(Begun("default", "c"))
    await journal.commit(Stored(at(2)))
    recovery = recovered(place, journal)
    assert [(found.id, found.phase) for found in recovery.unfinished] == [("b", "ended"), ("c", "begun"), ("d", "received")]
    assert ([found.id for found in recovery.recent], recovery.above) == (["a"], {1: False, 2: True, 3: True, 4: True})


async def test_recent_are_those_stored_whose_deadline_has_not_passed(place: Place, journal: Journal) -> None:
    """A deadline that is just now has not passed."""
    for number, deadline in enumerate((NOW - 1.0, NOW, NOW + 1.0), start=1):
        await finish(journal, f"c{number}", number, number, deadline=deadline)
    assert [found.id for found in recovered(place, journal).recent] == ["c2", "c3"]


# -- cursor, epochs, fences


async def test_the_cursor_takes_the_sequences_below_it_along(place: Place, journal: Journal) -> None:
    """What is above stays known, whatever the order it came in."""
    await journal.commit(Received(entry("a", 5)), Received(entry("b", 9)), Received(entry("c", 7)), Repeated(6), Repeated(8))
    await journal.commit(Advanced(6))
    recovery = recovered(place, journal)
    assert (recovery.cursor, recovery.above) == (6, {7: True, 8: False, 9: True})
    assert [found.id for found in recovery.unfinished] == ["a", "c", "b"]


async def test_the_cursor_goes_back_by_a_reset_only(place: Place, journal: Journal) -> None:
    """That every command up to here is in the ledger stays true."""
    await journal.commit(Advanced(9))
    await journal.commit(Advanced(4))
    assert recovered(place, journal).cursor == 9


async def test_a_reset_forgets_places_and_keeps_outcomes(place: Place, journal: Journal) -> None:
    """The cursor is 0 and no sequence known; commands stay, and new ones count from there."""
    await journal.commit(Received(entry("a", 5)), Received(entry("b", 6)), Repeated(8), Advanced(5))
    await journal.commit(Reset())
    await journal.commit(Received(entry("c", 6)), Repeated(7))
    recovery = recovered(place, journal)
    assert (recovery.cursor, recovery.above) == (0, {6: True, 7: False})
    assert [found.id for found in recovery.unfinished] == ["a", "b", "c"]


async def test_epochs_come_oldest_first_and_the_last_64_are_kept(place: Place, journal: Journal) -> None:
    """One that is there already is not kept twice."""
    epochs = [f"01JD{number:022}" for number in range(70)]
    for epoch in epochs:
        await journal.commit(EpochBegun(epoch))
    await journal.commit(EpochBegun(epochs[-1]))
    assert epochs[-64:] == recovered(place, journal).epochs


async def test_the_highest_fence_of_a_domain_stays(place: Place, journal: Journal) -> None:
    """Also when the commands that carried one are forgotten; 0 is no fence."""
    await journal.commit(Received(entry("a", 1, fence=2)), Received(entry("b", 2, fence=5)), Received(entry("c", 3, fence=4)))
    await journal.commit(Received(entry("d", 4, uuid=OTHER)))
    assert recovered(place, journal).fences == {UUID: 5}


async def test_the_fence_of_a_domain_goes_a_day_after_the_domain(place: Place, journal: Journal) -> None:
    """Counted from when it was noticed; that of a domain that is there stays, and one that came back is there."""
    await journal.commit(Received(entry("a", 1, fence=2)), Received(entry("b", 2, uuid=OTHER, fence=3)))
    await journal.commit(Told((), {OTHER: observed(uuid=OTHER)}))
    await journal.commit(Forgotten(NOW), Forgotten(NOW + KEPT_S))
    assert recovered(place, journal).fences == {UUID: 2, OTHER: 3}


async def test_the_fence_of_a_domain_long_gone_goes(place: Place, journal: Journal) -> None:
    """Also through restarts; that of a domain that came back begins anew."""
    await journal.commit(Received(entry("a", 1, fence=2)), Received(entry("b", 2, uuid=OTHER, fence=3)), Forgotten(NOW))
    await journal.commit(Told((), {OTHER: observed(uuid=OTHER)}), Forgotten(NOW + 1.0), Told((), {OTHER: None}))
    await journal.commit(Forgotten(NOW + KEPT_S + 1.0))
    assert recovered(place, journal).fences == {OTHER: 3}


async def test_a_doubt_is_kept_until_a_reset(place: Place, journal: Journal) -> None:
    """Sequences that come back after the broker lost its log are not in doubt."""
    await journal.commit(Doubted(7), Advanced(9))
    await journal.commit(Received(entry("a", 10)))
    assert journal.find("default", "a") is not None
    await journal.commit(Doubted(8))
    await journal.commit(Advanced(10))
    await journal.commit(Reset())
    recovery = recovered(place, journal)
    assert (recovery.cursor, recovery.doubt) == (0, 0)


async def test_a_doubt_is_recovered(place: Place, journal: Journal) -> None:
    """The last one said."""
    await journal.commit(Doubted(7), Doubted(8))
    assert recovered(place, journal).doubt == 8


# -- forgetting


async def test_only_what_is_stored_and_old_and_below_the_cursor_is_forgotten(place: Place, journal: Journal) -> None:
    """One that ended later, one not stored, one above the cursor stay."""
    await finish(journal, "old", 1, 1, ended_at=NOW - 100.0)
    await finish(journal, "young", 2, 2, ended_at=NOW - 10.0)
    await finish(journal, "above", 9, 3, ended_at=NOW - 100.0)
    await journal.commit(Received(entry("open", 3)), Received(entry("waits", 4)))
    await journal.commit(Told((event(4),)), ended("waits", 4, ended_at=NOW - 100.0), Advanced(4))
    await journal.commit(Forgotten(NOW - 10.0))
    assert journal.find("default", "old") is None
    assert None not in [journal.find("default", id) for id in ("young", "above", "open", "waits")]
    assert [found.id for found in recovered(place, journal).recent] == ["young", "above"]


async def test_a_forgotten_command_may_come_again(place: Place, journal: Journal) -> None:
    """It is a new one, and its sequence is known."""
    await finish(journal, "a", 1, 1, ended_at=NOW - 100.0)
    await journal.commit(Advanced(1))
    await journal.commit(Forgotten(NOW), Received(entry("a", 2)))
    assert entry("a", 2) == journal.find("default", "a")
    assert recovered(place, journal).above == {2: True}


async def test_a_reset_keeps_everything_from_being_forgotten(place: Place, journal: Journal) -> None:
    """Nothing is below a cursor of 0."""
    await finish(journal, "a", 1, 1, ended_at=NOW - 100.0)
    await journal.commit(Advanced(1), Reset())
    await journal.commit(Forgotten(NOW))
    assert [found.id for found in recovered(place, journal).recent] == ["a"]


async def test_what_was_told_is_what_is_recovered(place: Place, journal: Journal) -> None:
    """One of each change: a recovery equals what kill -9 leaves, and an orderly end."""
    changes: list[tuple[Change, ...]] = [
        (EpochBegun(EPOCHS[0]),),
        (Received(entry("a", 1, fence=1)), Repeated(2)),
        (Begun("default", "a"),),
        (Told((event(1),), {UUID: observed()}), ended("a", 1)),
        (Stored(at(1)), Advanced(1)),
        (Told((event(2),)),),
        (Received(entry("b", 3)),),
    ]
    for commit in changes:
        await journal.commit(*commit)
    expected = Recovery(
        cursor=1,
        epochs=[EPOCHS[0]],
        last=at(2),
        above={2: False, 3: True},
        unfinished=[entry("b", 3)],
        recent=[entry("a", 1, fence=1, phase="stored", result=b'{"ok":true}', event=at(1), ended=NOW)],
        outbox=[event(2)],
        domains={UUID: observed()},
        fences={UUID: 1},
    )
    survivor = place.killed().journal()
    assert expected == survivor.open(NOW)
    await survivor.commit(Received(entry("c", 4)))
    survivor.close()
    expected = msgspec.structs.replace(expected, above={2: False, 3: True, 4: True}, unfinished=[entry("b", 3), entry("c", 4)])
    assert expected == survivor.open(NOW)
    survivor.close()
