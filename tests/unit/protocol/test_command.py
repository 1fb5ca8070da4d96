"""Laws of commands, results and events on the wire."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.protocol import codec
from orchestrator.protocol.command import Result, decode_command, id_of, refusal
from orchestrator.protocol.error import BY_CODE, Conflict, DeadlineExceeded, Invalid, LibvirtCode, raised
from orchestrator.protocol.event import event, position
from orchestrator.protocol.verb import VERBS, AutostartArgs, find

START = find("start")


def test_an_empty_body_means_all_defaults() -> None:
    """Nothing need be said."""
    command = decode_command(START, b"", {})
    assert (command.id, command.timeout_s, command.condition, command.actor) == (None, 60.0, None, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff", "body"),
        (b'{"bogus": 1}', "bogus"),
        (b'{"args": {"bogus": 1}}', "args"),
        (b'{"timeout_s": 0}', "timeout_s"),
        (b'{"timeout_s": "a"}', "timeout_s"),
        (b'{"if": {"state": "asleep"}}', "if"),
        (b'{"if": {"mood": 1}}', "if"),
        (b'{"id": 7}', "id"),
        (b'{"id": "m-1"}', "id"),
        (b'{"id": "a b"}', "id"),
        (b"[" * 100_000, "body"),
    ],
)
def test_a_body_that_does_not_fit_is_invalid_and_names_the_place(body: bytes, field: str) -> None:
    """Commands are strict."""
    with pytest.raises(Invalid, match=field):
        decode_command(START, body, {})


def test_a_body_over_its_limit_is_invalid() -> None:
    """512 KiB."""
    with pytest.raises(Invalid, match="bytes"):
        decode_command(START, b" " * (codec.MAX_COMMAND + 1), {})


def test_the_id_may_stand_in_the_header_but_not_differ() -> None:
    """`Virt-Id` or body."""
    assert decode_command(START, b"", {"Virt-Id": "a"}).id == "a"
    assert decode_command(START, b'{"id": "a"}', {"Virt-Id": "a"}).id == "a"
    with pytest.raises(Invalid, match="id"):
        decode_command(START, b'{"id": "a"}', {"Virt-Id": "b"})


def test_equal_commands_have_equal_digests_whatever_their_spelling() -> None:
    """Order of fields, spaces, defaults and the id do not matter; arguments do."""
    verb = find("set-autostart")
    digest = decode_command(verb, b'{"id":"a","args":{"enabled":true},"timeout_s":5}', {}).digest
    assert decode_command(verb, b'{ "timeout_s": 5.0, "args": {} }', {"Virt-Id": "b"}).digest == digest
    assert decode_command(verb, b'{"args":{"enabled":false},"timeout_s":5}', {}).digest != digest
    assert decode_command(verb, b'{"args":{"enabled":true},"timeout_s":6}', {}).digest != digest


def test_arguments_are_typed() -> None:
    """One struct a verb."""
    assert decode_command(find("set-autostart"), b'{"args":{"enabled":false}}', {}).args == AutostartArgs(enabled=False)


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(["Virt-Id"]), st.text(max_size=5)))
def test_reading_the_id_of_garbage_never_raises(body: bytes, headers: dict[str, str]) -> None:
    """What is malformed still ends under its id, if it has one."""
    found = id_of(body, headers)
    assert found is None or 1 <= len(found) <= 64


def test_an_unknown_verb_names_the_known_ones() -> None:
    """The remedy stands in the message."""
    with pytest.raises(Invalid, match=r"known are: .*start"):
        find("strat", "verb")
    with pytest.raises(Invalid):
        find("get", "verb")


def test_a_result_has_the_exact_fields_of_the_contract() -> None:
    """No more where all is well."""
    result = Result(id="a", verb="start", ok=True, changed=False, node="n1", project="default", result={}, duration_ms=1.5)
    assert json.loads(codec.encode(result)) == {
        "id": "a",
        "verb": "start",
        "ok": True,
        "changed": False,
        "node": "n1",
        "project": "default",
        "result": {},
        "duration_ms": 1.5,
    }


def test_a_failure_says_code_message_retryable_outcome_and_libvirts_verdict() -> None:
    """And its number in the header."""
    body, headers = refusal(Conflict("no", libvirt=LibvirtCode(code=38, domain=10)))
    assert json.loads(body) == {
        "ok": False,
        "error": {"code": "conflict", "message": "no", "retryable": False, "outcome": "none", "libvirt": {"code": 38, "domain": 10}},
    }
    assert headers == {"Nats-Service-Error": "conflict", "Nats-Service-Error-Code": "409"}


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_an_error_survives_the_wire(code: str) -> None:
    """The exception raised at the client says what the worker said."""
    error = BY_CODE[code]("why", outcome="partial")
    again = raised(error.failure())
    assert (type(again), again.message, again.outcome, again.retryable) == (type(error), "why", "partial", error.retryable)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Conflict("x"), "command.failed"),
        (BY_CODE["cancelled"]("x"), "command.cancelled"),
        (DeadlineExceeded("x", outcome="none"), "command.expired"),
        (DeadlineExceeded("x", outcome="unknown"), "command.failed"),
    ],
)
def test_the_terminal_event_follows_from_the_result(error: Any, name: str) -> None:
    """Not begun in time is `expired`; begun and overrun is `failed`."""
    result = Result(id="a", verb="start", ok=False, node="n1", project="p", error=error.failure(), duration_ms=0)
    assert result.event == name


def test_an_event_is_a_cloudevent_and_its_id_gives_its_position() -> None:
    """The official SDK reads it; extension names are lower case."""
    epoch = "01JD0000000000000000000000"
    made = event(
        prefix="virt",
        name="lifecycle.started",
        source="/virt/nodes/n1",
        node="n1",
        project="default",
        subject="6f1c",
        time="2026-01-01T00:00:00.000000Z",
        epoch=epoch,
        sequence=42,
        previous=0,
        data={"event": "started"},
        domainname="web1",
        synthetic=True,
    )
    raw = codec.encode(made)
    parsed = JSONFormat().read(None, raw)
    assert (parsed.get_type(), parsed.get_source(), parsed.get_subject()) == ("virt.v1.lifecycle.started", "/virt/nodes/n1", "6f1c")
    read = json.loads(raw)
    assert made.name == "lifecycle.started"
    assert position(made.id) == (epoch, 42)
    assert read["previous"] == "0" * 16
    assert read["synthetic"] is True
    assert all(key.islower() and key.isalnum() for key in read)


def test_every_verb_has_a_schema() -> None:
    """JSON Schema comes from the registry."""
    for verb in VERBS.values():
        assert msgspec.json.schema(verb.args)["$defs"]
