"""Laws of the plan: a seed says it all."""

from __future__ import annotations

import json
from collections import Counter

from orchestrator.protocol import token
from tests.torture.plan import Plan, draw

NODES = {"n1": "test", "n2": "test", "q1": "qemu"}


def drawn(seed: int = 7, seconds: float = 120.0, rate: float = 25.0) -> Plan:
    """Return a plan of the size of a long run."""
    return draw(seed, seconds, NODES, ("c1", "c2"), rate=rate, domains=12)


def test_a_seed_gives_the_same_plan_each_time() -> None:
    """So that a run that broke a law can be had again."""
    assert drawn() == drawn()


def test_another_seed_gives_another_plan() -> None:
    """So that many runs see more than one."""
    assert drawn(7) != drawn(8)


def test_more_commands_leave_the_faults_as_they_are() -> None:
    """Each part is drawn by itself, so that one can be varied while the others stay."""
    assert drawn(rate=10).faults == drawn(rate=25).faults


def test_each_kind_of_fault_comes_before_any_comes_again_too_often() -> None:
    """A long run has all of them."""
    kinds = Counter(deed.kind for deed in drawn(seconds=300.0).faults)
    assert {"kill", "stop", "cut", "full", "libvirtd-kill", "libvirtd-stop"} == kinds.keys()


def test_all_ways_are_used_and_repeats_bear_the_body_of_the_first() -> None:
    """Else they would be other commands; those with another body say so."""
    plan = drawn()
    assert {"api", "cmd", "run"} == {send.way for send in plan.sends}
    bodies: dict[str, set[bytes]] = {}
    for send in plan.sends:
        if not send.bent:
            bodies.setdefault(send.id, set()).add(send.body)
    assert {1} == {len(found) for found in bodies.values()}
    assert len(plan.sends) > len(bodies)


def test_ids_of_a_plan_are_tokens_that_stand_in_the_bodies() -> None:
    """So that a failing audit speaks of the system and not of the plan."""
    for send in drawn().sends:
        assert token.command_id(send.id) == send.id
        assert json.loads(send.body)["id"] == send.id


def test_nothing_is_planned_beyond_the_end() -> None:
    """After it all is to heal."""
    plan = drawn(seconds=30.0)
    assert max(deed.at for deed in plan.faults) < plan.seconds
    assert max(send.at for send in plan.sends) <= plan.seconds
