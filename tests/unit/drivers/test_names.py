"""Names of states, reasons and events are libvirt's own."""

from __future__ import annotations

import libvirt
import pytest

from orchestrator.protocol.domain import State
from workers.drivers.libvirt import names

FLAGS_OF_SHUTDOWN = {"default", "acpi-power-btn", "guest-agent", "initctl", "signal", "paravirt"}
"""Flags of virDomainShutdown share the prefix of its reasons."""


def libvirts(prefix: str) -> dict[str, int]:
    """Return libvirt's constants under a prefix as names on the wire."""
    found = {key.removeprefix(prefix): value for key, value in vars(libvirt).items() if key.startswith(prefix)}
    return {key.lower().replace("_", "-"): value for key, value in found.items()}


@pytest.mark.parametrize("state", names.REASONS)
def test_every_reason_is_libvirts_own(state: State) -> None:
    """Each constant of this libvirt has its name at its number; we may know newer ones."""
    known = names.REASONS[state]
    theirs = libvirts(f"VIR_DOMAIN_{state.upper()}_")
    theirs = {name: number for name, number in theirs.items() if name not in FLAGS_OF_SHUTDOWN | {"disk-unknown"}}
    assert theirs == {name: known.index(name) for name in theirs}
    assert theirs


@pytest.mark.parametrize("event", names.LIFECYCLE)
def test_every_lifecycle_event_and_detail_is_libvirts_own(event: str) -> None:
    """The order of the lists is libvirt's numbering."""
    assert names.LIFECYCLE.index(event) == libvirts("VIR_DOMAIN_EVENT_")[event]
    theirs = libvirts(f"VIR_DOMAIN_EVENT_{event.upper()}_")
    assert theirs == {name: names.DETAILS[event].index(name) for name in theirs}
    assert theirs


def test_every_state_is_libvirts_own() -> None:
    """The order of the states is libvirt's numbering."""
    theirs = libvirts("VIR_DOMAIN_")
    assert {state: theirs[state] for state in names.STATES} == {state: number for number, state in enumerate(names.STATES)}


def test_a_number_of_a_newer_libvirt_has_a_name_too() -> None:
    """Nothing that a newer daemon sends breaks the mapping."""
    assert ("unknown", "code-99", "code-99") == (names.state(99), names.reason("running", 99), names.nth(names.LIFECYCLE, 99))
    assert names.reason("unknown", 3) == "code-3"
