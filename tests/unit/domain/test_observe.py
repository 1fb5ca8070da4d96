"""Laws of observation: differences become the events that nobody saw, and never more than these."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.protocol.domain import Observed, State
from tests.unit.domain.test_admission import sighting
from workers.domain.observe import incarnations, observed, rewound, unreadable, unseen
from workers.drivers.port import Happening, Sighting


def known(state: State, *, persistent: bool = True, incarnation: str | None = None) -> Observed:
    """Return what was observed of a domain."""
    seen = sighting(state, persistent=persistent, incarnation=incarnation)
    return observed(seen, node="n1", hypervisor="test:///x", default_project="default", epoch="E", sequence=1, updated="")


def happening(detail: str) -> Happening:
    """Return a lifecycle event."""
    return Happening(uuid="u", name="web1", event="lifecycle", detail=detail, data={"event": detail})


def names(before: Observed | None, now: Sighting | None) -> list[str]:
    """Return the unseen events' names."""
    return [event.name for event in unseen(before, now)]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, None, []),
        (None, sighting("shutoff"), ["lifecycle.defined"]),
        (None, sighting("running"), ["lifecycle.defined", "lifecycle.started"]),
        (None, sighting("paused", persistent=False), ["lifecycle.started", "lifecycle.suspended"]),
        (known("shutoff"), None, ["lifecycle.undefined"]),
        (known("running"), None, ["lifecycle.stopped", "lifecycle.undefined"]),
        (known("running", persistent=False), None, ["lifecycle.stopped"]),
        (known("shutoff"), sighting("running"), ["lifecycle.started"]),
        (known("running"), sighting("shutoff"), ["lifecycle.stopped"]),
        (known("running"), sighting("paused"), ["lifecycle.suspended"]),
        (known("paused"), sighting("running"), ["lifecycle.resumed"]),
        (known("running"), sighting("running"), []),
        (known("running"), sighting("blocked"), []),
        (known("running"), sighting("crashed"), ["lifecycle.crashed"]),
        (known("running"), sighting("pmsuspended"), ["lifecycle.pmsuspended"]),
        (known("running", persistent=False), sighting("running"), ["lifecycle.defined"]),
        (known("running"), sighting("running", persistent=False), ["lifecycle.undefined"]),
        (known("running", incarnation="A"), sighting("running", incarnation="B"), ["lifecycle.stopped", "lifecycle.started"]),
        (known("shutoff"), sighting("shutoff", autostart=True), ["state.changed"]),
        (known("running"), sighting("unknown"), ["state.changed"]),
        (known("unknown"), sighting("running"), ["state.changed"]),
        (known("unknown"), sighting("unknown"), []),
    ],
)
def test_a_difference_becomes_the_events_that_lead_there(before: Observed | None, now: Sighting | None, expected: list[str]) -> None:
    """Oldest first, nothing invented where nothing differs."""
    assert names(before, now) == expected


def test_a_domain_that_cannot_be_read_is_unknown_never_gone() -> None:
    """What was known stays, but for the state (lesson 3)."""
    seen = unreadable(known("running"), happening("suspended"))
    assert (seen.state, seen.name, seen.persistent) == ("unknown", "web1", True)
    assert unreadable(None, happening("started")).state == "unknown"


@pytest.mark.parametrize(
    ("before", "now", "seen", "expected"),
    [
        (known("shutoff"), sighting("running"), ["started"], []),
        (known("shutoff"), sighting("running"), ["resumed", "started"], []),
        (known("running", incarnation="A"), sighting("running", incarnation="B"), ["started"], ["lifecycle.stopped"]),
        (known("running"), sighting("shutoff"), ["stopped"], []),
        (known("shutoff"), sighting("shutoff"), ["stopped"], ["lifecycle.started"]),
        (known("running"), sighting("paused"), ["suspended"], []),
        (known("paused"), sighting("paused"), ["suspended"], ["lifecycle.resumed"]),
        (known("shutoff"), None, ["undefined"], []),
        (None, sighting("shutoff"), ["defined"], []),
        (known("shutoff"), sighting("running"), [], ["lifecycle.started"]),
    ],
)
def test_what_live_events_tell_is_not_told_again_by_a_scan(
    before: Observed | None, now: Sighting | None, seen: list[str], expected: list[str]
) -> None:
    """Only what lies before the first live event went unseen."""
    assert names(before, rewound(now, [happening(detail) for detail in seen], before)) == expected


@pytest.mark.parametrize(
    ("details", "before", "now", "expected"),
    [
        (["resumed", "started"], None, "B", ["B", "B"]),
        (["suspended"], "A", "A", ["A"]),
        (["stopped"], "A", None, ["A"]),
        (["stopped", "started"], "A", "B", ["A", "B"]),
        (["stopped", "started", "stopped", "started"], "A", "C", ["A", None, None, "C"]),
        (["started", "stopped"], None, None, [None, None]),
        (["suspended"], "A", None, ["A"]),
        (["stopped", "undefined"], "A", None, ["A", None]),
    ],
)
def test_each_event_bears_the_incarnation_it_belongs_to(
    details: list[str], before: str | None, now: str | None, expected: list[str | None]
) -> None:
    """A stop ends an incarnation; one that came and went unseen has no name."""
    assert incarnations([happening(detail) for detail in details], before, now) == expected


def test_observed_state_takes_project_labels_and_generation_from_the_domain() -> None:
    """A domain without our metadata belongs to the default project."""
    bare = msgspec.structs.replace(sighting("running"), tag=None)
    state = observed(bare, node="n1", hypervisor="test:///x", default_project="other", epoch="E", sequence=7, updated="t")
    assert (state.project, state.labels, state.generation, state.sequence) == ("other", {}, 0, "0000000000000007")
