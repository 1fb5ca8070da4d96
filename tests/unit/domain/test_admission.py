"""Laws of admission: verbs are absolute, conditions are judged before anything happens."""

from __future__ import annotations

import pytest

from orchestrator.protocol.command import Condition
from orchestrator.protocol.domain import State
from orchestrator.protocol.error import AlreadyExists, Conflict, NotFound
from orchestrator.protocol.verb import AutostartArgs, NoArgs, XmlArgs, find
from workers.domain.admission import admit
from workers.drivers.port import Sighting, Tag

UUID = "6f1c0000-0000-4000-8000-000000000001"


def sighting(
    state: State,
    *,
    persistent: bool = True,
    autostart: bool = False,
    incarnation: str | None = None,
    reason: str = "booted",
    saved: bool = False,
) -> Sighting:
    """Return a domain in `state`."""
    return Sighting(
        uuid=UUID,
        name="web1",
        type="test",
        state=state,
        reason=reason,
        persistent=persistent,
        autostart=autostart,
        vcpus=1,
        memory_kib=1024,
        tag=Tag(project="default", generation=3),
        incarnation=incarnation,
        saved=saved,
    )


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("start", "running"),
        ("start", "paused"),
        ("shutdown", "shutoff"),
        ("destroy", "shutoff"),
        ("suspend", "paused"),
        ("resume", "running"),
        ("resume", "blocked"),
    ],
)
def test_what_holds_already_is_ignored(verb: str, state: State) -> None:
    """A verb whose goal holds changes nothing and is no error."""
    assert admit(find(verb), NoArgs(), None, UUID, sighting(state)) == "ignore"


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("start", "shutoff"),
        ("shutdown", "running"),
        ("destroy", "paused"),
        ("suspend", "running"),
        ("resume", "paused"),
        ("reset", "running"),
    ],
)
def test_what_does_not_hold_is_run(verb: str, state: State) -> None:
    """A verb whose goal does not hold runs."""
    assert admit(find(verb), NoArgs(), None, UUID, sighting(state)) == "run"


@pytest.mark.parametrize("verb", ["suspend", "resume", "reboot", "reset"])
def test_a_stopped_domain_cannot_be_paused_or_rebooted(verb: str) -> None:
    """The message names the state and what is needed."""
    with pytest.raises(Conflict, match=r"is shutoff; .* needs one of: .*running"):
        admit(find(verb), NoArgs(), None, UUID, sighting("shutoff"))


def test_undefine_of_a_transient_domain_changes_nothing() -> None:
    """A transient domain has no definition."""
    assert admit(find("undefine"), NoArgs(), None, UUID, sighting("running", persistent=False)) == "ignore"
    assert admit(find("undefine"), NoArgs(), None, UUID, sighting("running")) == "run"


def test_autostart_that_is_set_already_changes_nothing() -> None:
    """set-autostart is absolute too."""
    on = AutostartArgs(enabled=True)
    assert admit(find("set-autostart"), on, None, UUID, sighting("shutoff", autostart=True)) == "ignore"
    assert admit(find("set-autostart"), on, None, UUID, sighting("shutoff")) == "run"


def test_what_is_saved_already_is_saved_and_what_is_off_cannot_be() -> None:
    """An image is what a save is for; a domain that is off without one has no memory to be saved."""
    save, remove = find("managed-save"), find("managed-save-remove")
    assert admit(save, NoArgs(), None, UUID, sighting("shutoff", saved=True)) == "ignore"
    assert [admit(save, NoArgs(), None, UUID, sighting(state)) for state in ("running", "paused")] == ["run", "run"]
    with pytest.raises(Conflict):
        admit(save, NoArgs(), None, UUID, sighting("shutoff"))
    assert admit(remove, NoArgs(), None, UUID, sighting("shutoff", saved=True)) == "run"
    assert admit(remove, NoArgs(), None, UUID, sighting("running")) == "ignore"


def test_an_absent_domain_is_not_found_unless_the_verb_makes_it() -> None:
    """Only define and create begin from nothing."""
    xml = XmlArgs(xml="<domain/>")
    assert admit(find("define-xml"), xml, None, UUID, None) == "run"
    assert admit(find("create-xml"), xml, None, UUID, None) == "run"
    with pytest.raises(NotFound):
        admit(find("start"), NoArgs(), None, UUID, None)
    with pytest.raises(NotFound):
        admit(find("undefine"), NoArgs(), None, UUID, None)


def test_undefine_of_what_this_worker_undefined_changes_nothing() -> None:
    """It provably exists nowhere."""
    assert admit(find("undefine"), NoArgs(), None, UUID, None, undefined_here=True) == "ignore"


def test_create_of_an_existing_domain_is_refused_and_define_changes_it() -> None:
    """Create makes something new; define redefines."""
    xml = XmlArgs(xml="<domain/>")
    with pytest.raises(AlreadyExists):
        admit(find("create-xml"), xml, None, UUID, sighting("shutoff"))
    assert admit(find("define-xml"), xml, None, UUID, sighting("running")) == "run"


@pytest.mark.parametrize(
    "condition",
    [Condition(state="shutoff"), Condition(generation=4), Condition(incarnation="01J")],
    ids=["state", "generation", "incarnation"],
)
def test_a_condition_that_does_not_hold_is_a_conflict(condition: Condition) -> None:
    """Also where the goal holds already."""
    with pytest.raises(Conflict, match=r"if\."):
        admit(find("start"), NoArgs(), condition, UUID, sighting("running", incarnation="01K"))


def test_conditions_that_hold_admit() -> None:
    """All fields are judged."""
    condition = Condition(state="running", generation=3, incarnation="01K")
    assert admit(find("destroy"), NoArgs(), condition, UUID, sighting("running", incarnation="01K")) == "run"


def test_a_condition_on_an_absent_domain_is_a_conflict() -> None:
    """A domain that is not there has no state."""
    with pytest.raises(Conflict):
        admit(find("create-xml"), XmlArgs(xml="<domain/>"), Condition(state="running"), UUID, None)
