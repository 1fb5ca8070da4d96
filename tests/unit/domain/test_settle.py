"""Laws of settling: what became of a command in doubt is told from what is there, never by trying again."""

from __future__ import annotations

import pytest

from orchestrator.protocol.domain import State
from orchestrator.protocol.error import Outcome
from orchestrator.protocol.verb import AutostartArgs, NoArgs, XmlArgs, find
from tests.unit.domain.test_admission import sighting
from workers.domain.settle import settle


@pytest.mark.parametrize(
    ("verb", "state", "outcome"),
    [
        ("start", "running", "applied"),
        ("start", "shutoff", "none"),
        ("destroy", "shutoff", "applied"),
        ("destroy", "running", "none"),
        ("shutdown", "shutoff", "applied"),
        ("shutdown", "running", "none"),
        ("suspend", "paused", "applied"),
        ("suspend", "running", "none"),
        ("resume", "running", "applied"),
        ("resume", "paused", "none"),
        ("reboot", "running", "unknown"),
        ("reset", "running", "unknown"),
        ("undefine", "shutoff", "none"),
    ],
)
def test_the_state_tells(verb: str, state: State, outcome: Outcome) -> None:
    """What the verb is for holds or not; a reboot leaves no trace."""
    assert settle(find(verb), NoArgs(), sighting(state), existed=True) == outcome


@pytest.mark.parametrize(("verb", "outcome"), [("undefine", "applied"), ("destroy", "applied"), ("shutdown", "applied"), ("start", "none")])
def test_a_domain_that_is_gone_was_ended(verb: str, outcome: Outcome) -> None:
    """What ends a domain has succeeded when it is gone."""
    assert settle(find(verb), NoArgs(), None, existed=True) == outcome


def test_a_domain_that_never_was_had_no_effect() -> None:
    """Nothing was there to be ended."""
    assert settle(find("destroy"), NoArgs(), None, existed=False) == "none"


@pytest.mark.parametrize(
    ("verb", "state", "existed", "outcome"),
    [
        ("define-xml", None, False, "none"),
        ("define-xml", "shutoff", False, "applied"),
        ("define-xml", "shutoff", True, "unknown"),
        ("create-xml", None, False, "none"),
        ("create-xml", "running", False, "applied"),
        ("create-xml", "shutoff", False, "partial"),
        ("create-xml", "running", True, "unknown"),
        ("create-xml", "shutoff", True, "unknown"),
    ],
)
def test_creation_is_settled_by_what_exists(verb: str, state: State | None, existed: bool, outcome: Outcome) -> None:
    """Defined but not started is half a create; of what was there before nothing can be told."""
    seen = sighting(state) if state is not None else None
    assert settle(find(verb), XmlArgs(xml="<domain/>"), seen, existed=existed) == outcome


def test_autostart_is_settled_by_its_value() -> None:
    """The flag tells."""
    on = AutostartArgs(enabled=True)
    assert settle(find("set-autostart"), on, sighting("shutoff", autostart=True), existed=True) == "applied"
    assert settle(find("set-autostart"), on, sighting("shutoff"), existed=True) == "none"


@pytest.mark.parametrize(
    ("state", "reason", "saved", "outcome"),
    [
        ("shutoff", "saved", True, "applied"),
        ("running", "save-canceled", False, "none"),
        ("paused", "user", False, "none"),
        ("paused", "save", False, "partial"),
        ("shutoff", "crashed", False, "partial"),
        (None, "", False, "partial"),
    ],
)
def test_a_save_is_settled_by_its_image(state: State | None, reason: str, saved: bool, outcome: Outcome) -> None:
    """What is off without one lost its memory; what is still paused for it was not let run on."""
    seen = sighting(state, reason=reason, saved=saved) if state is not None else None
    assert settle(find("managed-save"), NoArgs(), seen, existed=True) == outcome


def test_the_removal_of_an_image_is_settled_by_its_absence() -> None:
    """And by nothing else."""
    for saved, outcome in ((False, "applied"), (True, "none")):
        assert settle(find("managed-save-remove"), NoArgs(), sighting("shutoff", saved=saved), existed=True) == outcome
