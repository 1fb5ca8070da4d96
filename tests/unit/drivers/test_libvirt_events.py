"""Callbacks map to values and never raise."""

from __future__ import annotations

import libvirt
import pytest
import structlog

from workers.drivers.libvirt import events
from workers.drivers.port import Happening

UUID = "6f1c0000-0000-4000-8000-000000000001"


class Domain:
    """A handle as libvirt gives it to callbacks."""

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        """Return the UUID."""
        return UUID

    def name(self) -> str:
        """Return the name."""
        return "web1"


def test_a_lifecycle_callback_is_one_happening() -> None:
    """Numbers become libvirt's names."""
    seen: list[Happening] = []
    fired = events.callback(events.SOURCES[0], seen.append)
    fired(None, Domain(), libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED, None)
    data = {"event": "stopped", "detail": "destroyed"}
    assert [Happening(uuid=UUID, name="web1", event="lifecycle", detail="stopped", data=data)] == seen


def test_a_failing_listener_is_logged_and_stops_nothing() -> None:
    """Libvirt's thread would print the error and forget it."""

    def fail(_: Happening) -> None:
        raise RuntimeError("listener")

    with structlog.testing.capture_logs() as logs:
        events.callback(events.SOURCES[0], fail)(None, Domain(), 0, 0, None)
    assert [("libvirt.event.lost", "error")] == [(entry["event"], entry["log_level"]) for entry in logs]


class Hypervisor:
    """A connection that refuses registrations with one error."""

    def __init__(self, code: int) -> None:
        self.code = code

    def domainEventRegisterAny(self, *_: object) -> int:  # noqa: N802 - libvirt's name
        """Refuse."""
        refused = libvirt.libvirtError("refused")
        refused.err = (self.code, 0, "refused", 2, None, None, None, -1, -1)
        raise refused


def test_a_hypervisor_without_events_registers_none() -> None:
    """VirtualBox has no events at all, and can be used."""
    assert {} == events.register(Hypervisor(libvirt.VIR_ERR_NO_SUPPORT), lambda _: None)


def test_a_registration_that_fails_otherwise_is_no_silent_deafness() -> None:
    """Only "not supported" means that there are no events."""
    with pytest.raises(libvirt.libvirtError):
        events.register(Hypervisor(libvirt.VIR_ERR_INTERNAL_ERROR), lambda _: None)
