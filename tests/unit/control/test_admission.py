"""Repeats and room."""

from __future__ import annotations

from orchestrator.control.admission import MAX_WAITING, IdTaken, differs, refused
from orchestrator.protocol.error import Busy, NodeUnavailable


def test_only_what_is_known_on_both_sides_can_differ() -> None:
    """What is not known contradicts nothing."""
    assert [False, False, False, True] == [differs(None, "a"), differs("a", None), differs("a", "a"), differs("a", "b")]


def test_an_id_that_is_taken_is_a_conflict_that_names_it() -> None:
    """And the remedy."""
    assert ("conflict", True) == (IdTaken("k1").code, "'k1'" in IdTaken("k1").message)


def test_a_node_takes_commands_up_to_its_limit_whether_or_not_it_answers() -> None:
    """The log keeps them for it."""
    assert [None, None] == [refused("n1", MAX_WAITING, living=True), refused("n1", MAX_WAITING, living=False)]


def test_beyond_the_limit_a_living_node_is_busy_and_a_silent_one_unavailable() -> None:
    """Nothing was done in either case."""
    busy, gone = refused("n1", MAX_WAITING + 1, living=True), refused("n1", MAX_WAITING + 1, living=False)
    assert isinstance(busy, Busy)
    assert isinstance(gone, NodeUnavailable)
    assert ["none", "none"] == [busy.outcome, gone.outcome]
