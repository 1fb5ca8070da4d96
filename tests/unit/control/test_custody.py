"""When an owner record may go."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.control.custody import ORPHAN_S, SETTLE_S, Ending, holders, residue, successor
from tests.unit.control.records import failed, owner, result, seen


def judged(**facts: Any) -> str:
    """Judge a record of which nothing is known but `facts`."""
    return residue(**{"adopted": False, "vacated": False, "ending": None, "waiting": False, "living": True, "missing_s": 0.0, **facts})


def test_a_command_under_way_keeps_its_record() -> None:
    """However long it takes, and even where an earlier domain was seen to go."""
    assert ["keep", "keep"] == [judged(waiting=True, missing_s=1e9), judged(waiting=True, vacated=True)]


def test_a_record_that_nothing_accounts_for_goes_after_long_patience() -> None:
    """Its coordinator may still be about to store the command."""
    assert ["keep", "remove"] == [judged(missing_s=ORPHAN_S - 1), judged(missing_s=ORPHAN_S)]


def test_a_domain_seen_to_go_takes_its_record_with_it() -> None:
    """Whether a command made it, long ago or not, or it was adopted."""
    assert ["remove"] * 3 == [judged(vacated=True), judged(vacated=True, ending=Ending(result())), judged(vacated=True, adopted=True)]


@pytest.mark.parametrize(
    "ending",
    [
        Ending(failed("none")),
        Ending(failed("unknown"), settled="none"),
        Ending(result(), undone=True),
        Ending(failed("partial"), undone=True),
    ],
)
def test_a_command_that_left_nothing_leaves_no_record(ending: Ending) -> None:
    """It failed without effect, or what it made was undefined."""
    assert "remove" == judged(ending=ending, living=False)


@pytest.mark.parametrize("ending", [Ending(failed("unknown")), Ending(failed("partial"), settled="applied")])
def test_an_unknown_effect_keeps_the_record_for_long(ending: Ending) -> None:
    """The domain may yet show itself."""
    assert ["keep", "remove"] == [judged(ending=ending, missing_s=ORPHAN_S - 1), judged(ending=ending, missing_s=ORPHAN_S)]


@pytest.mark.parametrize("facts", [{"ending": Ending(result())}, {"adopted": True}])
def test_a_domain_that_was_there_is_given_time_to_show_itself(facts: dict[str, Any]) -> None:
    """Its state comes after its event; a worker that does not live says nothing at all."""
    assert ["keep", "remove", "keep"] == [
        judged(**facts, missing_s=SETTLE_S - 1),
        judged(**facts, missing_s=SETTLE_S),
        judged(**facts, missing_s=1e9, living=False),
    ]


def test_holders_are_those_who_say_they_own_it_by_node() -> None:
    """Not who it comes to or has left."""
    assert ["a", "b"] == [one.node for one in holders([seen("b"), seen("c", role="former"), seen("a")])]


def test_another_command_takes_over_a_record_in_its_place() -> None:
    """Node and epoch stay: the domain does not move."""
    after = successor(owner(), "k2", "new")
    assert ("n1", 3, "k2", "new") == (after.node, after.epoch, after.id, after.name)
