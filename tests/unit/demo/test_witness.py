"""The demo's witness finds each kind of broken promise, and nothing in a log that keeps them all."""

from __future__ import annotations

from typing import Any

import pytest

from demo import witness
from orchestrator.protocol import event as protocol
from orchestrator.protocol.event import Event

WEB, DB = "6f1c0000-0000-4000-8000-000000000001", "6f1c0000-0000-4000-8000-000000000002"


def told(sequence: int, previous: int, name: str = "lifecycle.started", **more: Any) -> Event:
    """Return an event of n1 on WEB, in its first epoch, where nothing else is said."""
    given = {"subject": WEB, "epoch": "01A", "node": "n1", "source": "/virt/nodes/n1", "project": "default", "time": "", "data": {}} | more
    return protocol.event(prefix="virt", name=name, sequence=sequence, previous=previous, **given)


GOOD = [
    told(1, 0, "node.online", subject="n1", project="_"),
    told(2, 0, "lifecycle.defined"),
    told(3, 0, "lifecycle.defined", subject=DB),
    told(4, 2, "lifecycle.started", commandid="a"),
    told(5, 4, "command.succeeded", commandid="a"),
    told(9, 0, "command.failed", commandid="b", source="/virt/coordinators/c1", node="_"),
    told(1, 0, "node.online", subject="n1", project="_", epoch="01B", data={"previous": {"epoch": "01A", "sequence": f"{5:016d}"}}),
    told(2, 0, "lifecycle.stopped", epoch="01B"),
]


def test_a_log_that_keeps_all_promises_has_no_faults() -> None:
    """Two epochs, two domains, and a coordinator that promises no contiguity."""
    found = [*witness.holes(GOOD), *witness.broken_chains(GOOD), *witness.wrong_ends(GOOD, ["a", "b"])]
    found += witness.torn_epochs(GOOD)
    found += witness.missing_steps(GOOD, WEB, ["defined", "started", "stopped"])
    assert found == []


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_lost_event_is_a_hole(lost: int) -> None:
    """Whether the first one or one in the middle is missing."""
    assert len(witness.holes(GOOD[:lost] + GOOD[lost + 1 :])) == 1


def test_a_doubled_event_is_a_hole() -> None:
    """The same sequence twice is no contiguous sequence."""
    assert witness.holes([*GOOD[:2], GOOD[1]]) != []


def test_an_event_lost_at_the_end_of_an_epoch_tears_it_from_the_next() -> None:
    """No sequence shows it, but the next epoch names what came last."""
    log = [*GOOD[:4], *GOOD[5:]]
    assert witness.holes(log) == []
    assert len(witness.torn_epochs(log)) == 1


def test_an_event_lost_from_one_domain_breaks_its_chain() -> None:
    """`previous` names an event that is not there."""
    assert len(witness.broken_chains([*GOOD[:3], *GOOD[4:]])) == 1


def test_each_command_ends_once() -> None:
    """No end, two ends, and the end of a command that nobody sent are all faults."""
    end = told(6, 5, "command.succeeded", commandid="a")
    assert witness.wrong_ends([end], ["a", "b"]) == ["b: 0 terminal events"]
    assert witness.wrong_ends([end, end], ["a"]) == ["a: 2 terminal events"]
    assert len(witness.wrong_ends([end], [])) == 1


def test_a_life_told_in_another_order_is_a_fault() -> None:
    """A step counts only behind the step before it."""
    assert witness.missing_steps(GOOD, WEB, ["defined", "stopped"]) == []
    assert len(witness.missing_steps(GOOD, WEB, ["started", "defined"])) == 1
