"""Events as values for `match`: each kind of the wire has its class, and none is lost for being unknown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator.event import (
    KINDS,
    CommandEvent,
    CommandFailed,
    CommandSettled,
    CommandSucceeded,
    DuplicateDomain,
    Event,
    HealthEvent,
    Known,
    Lifecycle,
    NodeOffline,
    NodeOnline,
    Other,
    StateChanged,
    typed,
)
from orchestrator.protocol import codec
from orchestrator.protocol.event import event

_VIRSH = """
    lifecycle reboot rtc-change watchdog io-error graphics io-error-reason control-error block-job disk-change tray-change pm-wakeup
    pm-suspend balloon-change pm-suspend-disk device-removed block-job-2 tunable agent-lifecycle device-added migration-iteration
    job-completed device-removal-failed metadata-change block-threshold memory-failure memory-device-size-change nic-mac-change
    network pool nodedev secret
"""
LIBVIRT = _VIRSH.split()
OURS = [
    *(f"command.{tail}" for tail in ("progress", "settled", "succeeded", "failed", "cancelled", "expired", "accepted", "started")),
    *(f"node.{tail}" for tail in ("online", "offline", "degraded", "cordoned", "drained", "fenced", "removed")),
    *(f"stream.{tail}" for tail in ("gap", "resync")),
    *(f"health.{tail}" for tail in ("slow-call", "stuck-domain", "duplicate-domain")),
    "state.changed",
]


def told(name: str, data: dict[str, Any] | msgspec.Raw | None = None) -> Event:
    """Return an event as it comes from the log."""
    made = event(
        prefix="virt", name=name, source="/virt/nodes/n1", node="n1", project="default", subject="u", time="2026-01-01T00:00:00Z",
        epoch="01JD0000000000000000000000", sequence=2, previous=1, data=data or {}, domainname="web1", commandid="one",
    )
    return codec.decode(codec.encode(made), Event)


@pytest.mark.parametrize("name", [*LIBVIRT, *OURS])
def test_each_kind_of_the_wire_has_its_own_class(name: str) -> None:
    """PROTOCOL §5 lists them."""
    assert (KINDS[name], name) == (type(typed(told(name))), KINDS[name].kind)


def test_there_is_no_class_that_the_wire_does_not_know() -> None:
    """Beside the kinds there are only the bases of families."""
    assert {"command", "node", "stream", "health"} == KINDS.keys() - {*LIBVIRT, *OURS}


def test_a_typed_event_says_on_the_wire_what_it_was() -> None:
    """Its attributes beside CloudEvents' are read from the data and stand nowhere else."""
    raw = codec.encode(told("lifecycle.started", {"event": "started", "detail": "booted", "new": 1}))
    assert raw == codec.encode(typed(codec.decode(raw, Event)))


def test_events_are_matched_by_what_they_say() -> None:
    """The parts of the data are attributes of the value."""
    match typed(told("lifecycle.started", {"event": "started", "detail": "booted"})):
        case Lifecycle(event="started", detail=detail, domainname="web1"):
            assert "booted" == detail
        case other:
            pytest.fail(f"{other} is no start")


def test_the_end_of_a_command_tells_its_result() -> None:
    """Its attributes are those of `Result`."""
    failure = {"code": "conflict", "message": "no", "retryable": False, "outcome": "none"}
    failed = typed(told("command.failed", {"verb": "start", "ok": False, "error": failure, "duration_ms": 2.5}))
    assert isinstance(failed, CommandFailed)
    assert failed.error is not None
    assert ("one", "start", "conflict", 2.5, None) == (failed.commandid, failed.verb, failed.error.code, failed.duration_ms, failed.domain)
    data = {"verb": "start", "changed": True, "domain": {"uuid": "u", "state": "running"}, "result": {"a": 1}}
    done = typed(told("command.succeeded", data))
    assert isinstance(done, CommandSucceeded)
    assert done.domain is not None
    assert (True, "running", {"a": 1}) == (done.changed, done.domain.state, done.result)


@pytest.mark.parametrize(
    ("name", "data", "attribute", "value"),
    [
        ("node.online", {"node": "n1", "previous": {"epoch": "e", "sequence": "7"}}, "previous_end", {"epoch": "e", "sequence": "7"}),
        ("node.online", {"node": "n1", "previous": None}, "previous_end", None),
        ("health.duplicate-domain", {"nodes": ["n1", "n2"]}, "nodes", ["n1", "n2"]),
        ("command.settled", {"outcome": "applied"}, "outcome", "applied"),
        ("command.settled", {"outcome": "something new"}, "outcome", "unknown"),
        ("lifecycle.started", {"event": 7}, "event", ""),
        ("state.changed", {"state": "running"}, "observed", None),
    ],
)
def test_a_part_that_is_not_there_has_its_default(name: str, data: dict[str, Any], attribute: str, value: object) -> None:
    """Also one of another type: an event is never a reason to fail."""
    assert value == getattr(typed(told(name, data)), attribute)


def test_a_changed_state_tells_the_whole_domain() -> None:
    """Its data is the observed state of PROTOCOL §6."""
    data = {
        "uuid": "u", "name": "web1", "project": "p", "node": "n1", "hypervisor": "test:///default", "type": "test", "state": "paused",
        "reason": "user", "persistent": True, "autostart": False, "vcpus": 1, "memory_kib": 1024, "labels": {}, "generation": 0,
        "incarnation": None, "role": "owner", "epoch": "e", "sequence": "7", "updated": "2026-01-01T00:00:00Z",
    }
    changed = typed(told("state.changed", data))
    assert isinstance(changed, StateChanged)
    assert changed.observed is not None
    assert "paused" == changed.observed.state


@pytest.mark.parametrize(("name", "kind"), [("command.dreamt", CommandEvent), ("health.new.thing", HealthEvent), ("quota.reached", Other)])
def test_what_a_newer_fleet_tells_is_not_lost(name: str, kind: type[Event]) -> None:
    """It is of its family, or `Other`, and says all that it said."""
    new = typed(told(name, {"a": 1}))
    assert (kind, name, {"a": 1}) == (type(new), new.name, new.data)


def test_families_are_bases_of_their_kinds() -> None:
    """`case CommandEvent()` takes all of them; nodes know offline from online."""
    assert issubclass(CommandSettled, CommandEvent)
    assert issubclass(DuplicateDomain, Known)
    assert not issubclass(NodeOffline, NodeOnline)


@pytest.mark.parametrize(("raw", "kind"), [(b'{"event": "started"}', Lifecycle), (b"7", Other), (b"oops", Other)])
def test_data_that_is_not_decoded_yet_is(raw: bytes, kind: type[Event]) -> None:
    """An event made in this program may hold it as bytes; what is no object belongs to no kind."""
    made = msgspec.structs.replace(told("lifecycle.started"), data=msgspec.Raw(raw))
    assert kind is type(typed(made))
