"""Turns."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.lanes import Lanes, Ticket

pytestmark = pytest.mark.anyio

KEYS = ("u1", "u2", "p/a", "p/b")


def test_one_key_is_one_command_at_a_time_in_order() -> None:
    """The second has its turn when the first has left."""
    lanes = Lanes()
    first, second, third = lanes.join("u1"), lanes.join("u1"), lanes.join("u1")
    assert [True, False, False] == [first.first, second.first, third.first]
    first.leave()
    assert [True, False] == [second.first, third.first]


def test_different_keys_do_not_wait_for_each_other() -> None:
    """Domains run in parallel."""
    lanes = Lanes()
    assert all(lanes.join(key).first for key in KEYS)


def test_a_command_of_two_keys_waits_for_both() -> None:
    """And holds both up."""
    lanes = Lanes()
    by_uuid, creates, by_name = lanes.join("u1"), lanes.join("u1", "p/a"), lanes.join("p/a")
    assert [False, False] == [creates.first, by_name.first]
    by_uuid.leave()
    assert [True, False] == [creates.first, by_name.first]


def test_who_gives_up_makes_room() -> None:
    """In the middle of the lane as at its head; leaving twice is leaving once."""
    lanes = Lanes()
    first, second, third = lanes.join("u1"), lanes.join("u1"), lanes.join("u1")
    second.leave()
    second.leave()
    first.leave()
    assert third.first


def test_a_lane_exists_only_while_somebody_is_in_it() -> None:
    """So they are bounded by what is under way."""
    lanes = Lanes()
    ticket = lanes.join("u1", "u1")
    assert lanes.busy("u1")
    ticket.leave()
    assert not lanes.busy("u1")


def test_a_name_that_turns_out_to_mean_a_busy_domain_waits_by_age() -> None:
    """Behind who has its turn there, before who came later."""
    lanes = Lanes()
    running, by_name, later = lanes.join("u1"), lanes.join("p/a"), lanes.join("u1")
    by_name.extend("u1")
    assert [True, False, False] == [running.first, by_name.first, later.first]
    running.leave()
    assert [True, False] == [by_name.first, later.first]


def test_who_comes_by_name_can_learn_what_it_is_about_to_mean() -> None:
    """From who makes the domain of that name."""
    lanes = Lanes()
    lanes.join("u1", "p/a")
    assert [["u1"], []] == [lanes.beside("p/a"), lanes.beside("p/b")]


def test_joining_a_lane_twice_changes_nothing() -> None:
    """A turn is not lost by it."""
    ticket = Lanes().join("u1")
    ticket.extend("u1")
    assert ticket.first


async def test_a_turn_can_be_awaited() -> None:
    """And ends the waiting as soon as it is given."""
    lanes = Lanes()
    first, second = lanes.join("u1"), lanes.join("u1")
    with anyio.fail_after(1):
        await first.turn()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.turn)
            await anyio.lowlevel.checkpoint()
            first.leave()


Step = tuple[frozenset[str], str]


@given(st.lists(st.tuples(st.frozensets(st.sampled_from(KEYS), min_size=1, max_size=2), st.sampled_from(KEYS)), max_size=12), st.randoms())
def test_everybody_has_a_turn_and_never_two_in_one_lane(commands: list[Step], chance: object) -> None:
    """Whatever keys commands have, and whichever of them find out about one more when their turn comes: nobody waits for ever."""
    lanes = Lanes()
    tickets: dict[Ticket, str] = {lanes.join(*sorted(keys)): more for keys, more in commands}
    while tickets:
        holding = [ticket for ticket in tickets if ticket.first]
        held = [key for ticket in holding for key in ticket.keys]
        assert len(set(held)) == len(held)
        assert holding, "somebody can always go on"
        ticket = chance.choice(holding)  # type: ignore[attr-defined]  # a random.Random
        more = tickets[ticket]
        if more not in ticket.keys:
            ticket.extend(more)
        else:
            ticket.leave()
            del tickets[ticket]
