"""From messages to orders."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.control.intake import Malformed, Order, read
from orchestrator.protocol import codec, domainxml, token
from orchestrator.protocol.command import decode_command
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.subject import NONE, Subjects
from orchestrator.protocol.verb import XmlArgs
from tests.unit.control.records import UUID

SUBJECTS = Subjects()
XML = "<domain type='test'><name>web1</name><memory>1024</memory></domain>"
BARE = "<domain type='test'><memory>1024</memory></domain>"


def order(domain: str, verb: str, body: Any = None, headers: dict[str, str] | None = None, *, project: str = "p") -> Order | Malformed:
    """Read a command that came at second 1000 and would be called m-cmd-7."""
    raw = body if isinstance(body, bytes) else b"" if body is None else codec.encode(body)
    return read(SUBJECTS, SUBJECTS.cmd(project, domain, verb), raw, headers or {}, own_id=lambda: "m-cmd-7", received=1000.0)


def valid(*args: Any, **options: Any) -> Order:
    """Read a command that must be valid."""
    made = order(*args, **options)
    assert isinstance(made, Order), made
    return made


def malformed(*args: Any, **options: Any) -> Malformed:
    """Read a command that must not be."""
    made = order(*args, **options)
    assert isinstance(made, Malformed), made
    return made


def test_a_command_by_name_has_no_uuid_yet() -> None:
    """It is resolved when its turn comes."""
    made = valid("web1", "start", {"id": "k1", "timeout_s": 5})
    assert (NONE, "web1", True, "k1", True, 1005.0) == (made.uuid, made.name, made.by_name, made.id, made.given, made.deadline)


def test_a_uuid_is_lower_case_whatever_it_came_as() -> None:
    """UUIDs compare without case."""
    made = valid(UUID.upper().replace("0001", "000A"), "start")
    assert (UUID.replace("0001", "000a"), None, False) == (made.uuid, made.name, made.by_name)


def test_a_command_without_an_id_gets_the_receivers() -> None:
    """From its place in the log, or a fresh one."""
    made = valid("web1", "start")
    assert ("m-cmd-7", False, 1060.0) == (made.id, made.given, made.deadline)


def test_an_id_may_come_in_a_header_but_not_one_of_ours() -> None:
    """Whatever other headers pretend that a router sent it."""
    assert "k1" == valid("web1", "start", headers={"Virt-Id": "k1"}).id
    forged = malformed("web1", "start", headers={"Virt-Id": "m-cmd-1", "Virt-Deadline": "2026-01-01T00:00:00Z"})
    assert "m-cmd-7" == forged.id


def test_trace_headers_travel_on_and_no_others() -> None:
    """What routers say is said by routers."""
    made = valid("web1", "start", headers={"traceparent": "t", "tracestate": "s", "Virt-Fence": "9"})
    assert {"traceparent": "t", "tracestate": "s"} == made.trace


def test_a_plain_body_travels_as_it_came() -> None:
    """The worker reads it again."""
    body = b' { "if": {"state": "running"} } '
    assert body == valid("web1", "reboot", body).body


@pytest.mark.parametrize(
    ("domain", "xml", "uuid", "name"),
    [
        ("web1", BARE, token.derived_uuid("p", "k1"), "web1"),
        ("web1", XML, token.derived_uuid("p", "k1"), "web1"),
        ("web1", XML.replace("<memory>", f"<uuid>{UUID}</uuid><memory>"), UUID, "web1"),
        (UUID, XML, UUID, "web1"),
    ],
)
def test_what_the_xml_of_a_new_domain_lacks_is_filled_in(domain: str, xml: str, uuid: str, name: str) -> None:
    """Name and UUID, from the subject or from the id, in what is sent on too."""
    made = valid(domain, "create-xml", {"id": "k1", "args": {"xml": xml, "node": "n1"}})
    sent = decode_command(made.command.verb, made.body, {}).args
    assert isinstance(sent, XmlArgs)
    identity = domainxml.identify(sent.xml)
    assert (uuid, name, uuid, name, "n1") == (made.uuid, made.name, identity.uuid, identity.name, sent.node)
    assert made.creates
    assert made.wanted == sent


def test_a_repeat_has_the_same_body() -> None:
    """So that the worker knows it for one."""
    command = ("web1", "create-xml", {"id": "k1", "args": {"xml": BARE}, "actor": "me"})
    assert valid(*command).body == valid(*command).body


@pytest.mark.parametrize(
    ("domain", "xml", "reason"),
    [
        (UUID, BARE, "<name> is missing"),
        (UUID, XML.replace("<memory>", f"<uuid>{UUID[:-1]}2</uuid><memory>"), "must agree"),
        ("web2", XML, "must agree"),
        ("web1", "<!DOCTYPE d>" + XML, "DOCTYPE"),
        ("web1", BARE.replace("1024", "1024" + " " * (codec.MAX_COMMAND - len(BARE) - 60)), "filled in"),
    ],
)
def test_xml_that_contradicts_its_subject_is_invalid(domain: str, xml: str, reason: str) -> None:
    """Or says too little, or is dangerous, or grows too large."""
    made = malformed(domain, "create-xml", {"id": "k1", "args": {"xml": xml}})
    assert ("k1", True) == (made.id, reason in made.error.message), made.error.message


def test_what_can_be_read_of_a_malformed_command_is_kept() -> None:
    """Its end must reach who sent it."""
    made = malformed(UUID.upper(), "start", {"id": "k1", "nonsense": 1})
    assert ("p", UUID, "start", "k1", True) == (made.project, made.uuid, made.verb, made.id, made.given)


def test_without_a_project_nothing_else_of_it_is_believed() -> None:
    """An id belongs to a project."""
    made = malformed(UUID, "start", {"id": "k1"}, project="a%b")
    assert (NONE, NONE, "m-cmd-7", False) == (made.project, made.uuid, made.id, made.given)


@given(subject=st.text(max_size=80), body=st.binary(max_size=200), headers=st.dictionaries(st.text(max_size=10), st.text(max_size=10)))
def test_reading_never_raises(subject: str, body: bytes, headers: dict[str, str]) -> None:
    """Whatever anybody sends."""
    made = read(SUBJECTS, subject, body, headers, own_id=lambda: "m-cmd-7", received=0.0)
    assert isinstance(made, Malformed | Order)


def test_times_are_told_in_utc_with_microseconds() -> None:
    """As RFC 3339 has it."""
    assert "1970-01-01T00:00:01.500000Z" == timestamp(1.5)
