"""Whatever anybody sends: it is a command or it is `Invalid`, and what is told of it fits into an event."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.protocol import codec, domainxml
from orchestrator.protocol.command import (
    HEADER_DEADLINE,
    HEADER_FENCE,
    HEADER_ID,
    HEADER_TRACEPARENT,
    HEADER_TRACESTATE,
    MAX_TRACE,
    Command,
    Result,
    decode_command,
    id_of,
    trace_of,
)
from orchestrator.protocol.domainxml import MAX_NAME, Identity, complete, identify
from orchestrator.protocol.error import MAX_SENTENCE, Invalid
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import VERBS, CommandIdArgs, Verb, find

MAX_TOLD = 128 * 1024
"""Bytes of a result that tells of a malformed command, whatever that was."""

UUID = "6f1c0000-0000-4000-8000-000000000001"
LETTERS = st.text(st.characters(codec=None))  # halves of characters, too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "xml", "id", "state"]) | st.text(max_size=4), inner),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries({}, optional=dict.fromkeys(["id", "args", "timeout_s", "if", "actor", "more"], JSON)).map(
    lambda body: json.dumps(body).encode()
)
HEADERS = st.dictionaries(
    st.sampled_from([HEADER_ID, HEADER_DEADLINE, HEADER_FENCE, HEADER_TRACEPARENT, HEADER_TRACESTATE, "x"]), LETTERS, max_size=4
)
PIECES = st.lists(
    st.sampled_from([
        "<domain>", "<domain type='qemu'>", "</domain>", "<name>", "</name>", "<uuid>", "</uuid>", UUID, "web1", "<metadata>",
        "</metadata>", "<a:b xmlns:a='urn:a'/>", "<a:b/>", "<x xmlns='urn:x'>", "</x>", "<![CDATA[x<y]]>", "<!-- -->", "<?a b?>",
        "&amp;", "&a;", "é", "\0", "<?xml version='1.0'?>", "<?xml version='1.0' encoding='x'?>", "<!DOCTYPE domain>",
        "<memory unit='TB'>9</memory>", " ", "\ufeff",
    ]),
    max_size=14,
).map("".join)  # fmt: skip



def check_told(error: Invalid) -> None:
    """Check that a result that tells of an error fits into an event."""
    result = Result(id="k", verb="start", ok=False, node="_", project="_", error=error.failure(), duration_ms=0.0, subject="s" * 4096)
    assert len(codec.encode(result)) <= MAX_TOLD


def decoded(verb: Verb, raw: bytes, headers: dict[str, str]) -> Command | None:
    """Return the command, None if it is none, and then that can be told. Anything but `Invalid` comes out."""
    try:
        return decode_command(verb, raw, headers)
    except Invalid as error:
        check_told(error)
    assert len(id_of(raw, headers) or "") <= 64
    return None


@given(verb=st.sampled_from(sorted(VERBS)), raw=st.binary(max_size=300) | BODIES, headers=HEADERS)
def test_a_body_is_a_command_or_invalid(verb: str, raw: bytes, headers: dict[str, str]) -> None:
    """And what is a command can travel on, and be told from another."""
    command = decoded(VERBS[verb], raw, headers)
    if command is not None:
        codec.encode([command.args, command.condition])
        assert len(command.digest) == 32
        assert all(len(value) <= MAX_TRACE for value in trace_of(headers).values())


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"args":' * 50_000,
        b'{"args":{"a":' + b'{"a":' * 900 + b"1" + b"}" * 902,
        b'{"' + b"\\u0001" * 80_000 + b'":1}',
        json.dumps({"id": "\U0010ffff" * 120_000}, ensure_ascii=False).encode(),
        json.dumps({"args": {"xml": "<domain><name>" + "\x7f" * 500_000}}).encode(),
        b'{"if":{"generation":' + b"9" * 100_000 + b"}}",
        b" " * (codec.MAX_COMMAND + 1),
    ],
    ids=lambda raw: f"{raw[:12]!r} {len(raw)}",
)
@pytest.mark.parametrize("verb", ["start", "define-xml"])
def test_nothing_is_so_large_or_deep_that_it_cannot_be_told(verb: str, raw: bytes) -> None:
    """One event that the broker would not store would hold up all that come after it."""
    command = decoded(find(verb), raw, {HEADER_ID: "k"})
    assert command is None or verb == "define-xml"


def test_a_message_says_no_more_than_fits() -> None:
    """What it quotes is cut off."""
    error = Invalid("x" * 1_000_000)
    assert (MAX_SENTENCE + 1, str(error)) == (len(error.message), error.message)


@pytest.mark.parametrize(
    "raw", [b'{"id":"a","id":"b"}', b'{"id":"a","\\u0069d":"b"}', b'{"args":{"enabled":true,"enabled":false}}', b'{"if":{},"if":{}}']
)
def test_a_key_that_stands_twice_is_invalid(raw: bytes) -> None:
    """Two readers could take it for two commands."""
    with pytest.raises(Invalid, match="stands twice"):
        decode_command(find("set-autostart"), raw, {})


@pytest.mark.parametrize("name", [HEADER_TRACEPARENT, HEADER_TRACESTATE])
def test_a_trace_header_that_is_too_long_is_invalid_and_travels_no_further(name: str) -> None:
    """It would stand in each event of the command."""
    with pytest.raises(Invalid, match=f"header {name}"):
        decode_command(find("start"), b"", {name: "0" * (MAX_TRACE + 1)})
    assert trace_of({name: "0" * (MAX_TRACE + 1)}) == {}
    assert trace_of({name: "0" * MAX_TRACE}) == {name: "0" * MAX_TRACE}


@pytest.mark.parametrize(
    ("id", "valid"), [("a-B_9", True), ("m-cmd-7", True), ("", False), ("a\n", False), ("a.b", False), ("x" * 65, False)]
)
def test_who_names_a_command_names_one_that_can_be(id: str, valid: bool) -> None:
    """The id of a command that is to be cancelled or shown is a token."""
    body = json.dumps({"args": {"id": id}}).encode()
    if valid:
        assert decode_command(find("cancel"), body, {}).args == CommandIdArgs(id=id)
    else:
        with pytest.raises(Invalid, match="args"):
            decode_command(find("cancel"), body, {})


@given(st.lists(LETTERS, max_size=9).map(".".join))
def test_a_subject_is_taken_apart_or_invalid(subject: str) -> None:
    """Each shape of subject; what is taken apart has all its tokens."""
    subjects = Subjects()
    for parse in (subjects.parse_addressed, subjects.parse_routed, subjects.parse_event):
        with suppress(Invalid):
            parts = msgspec.structs.astuple(parse(subject))
            assert subject.endswith("." + ".".join(parts))


def identified(document: str) -> Identity | None:
    """Return what a document says, None if it is refused; anything but `Invalid` comes out."""
    try:
        return identify(document)
    except Invalid as error:
        check_told(error)
        return None


@given(document=LETTERS | PIECES, name=st.none() | st.just("web1"))
def test_xml_is_understood_or_invalid_and_what_is_completed_says_who_it_is(document: str, name: str | None) -> None:
    """Also where it is in pieces; nothing but name and UUID is added, in one place."""
    said = identified(document)
    try:
        done = complete(document, name=name, uuid=UUID)
    except Invalid:
        return
    assert said is not None
    again = identify(done)
    assert (again.uuid, again.name) == (UUID, said.name if said.name is not None else name)
    at = len(document.encode()[: said.insert_at].decode())
    added = len(done) - len(document)
    assert document == done[:at] + done[at + added :]


def test_billion_laughs_are_not_laughed() -> None:
    """The DOCTYPE is refused before anything in it is read."""
    entities = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    with pytest.raises(Invalid, match="DOCTYPE"):
        identify(f'<!DOCTYPE d [<!ENTITY a "ha">{entities}]><domain><name>&j;</name></domain>')


@pytest.mark.parametrize(
    ("declaration", "valid"),
    [
        ('<?xml version="1.0"?>', True),
        ('<?xml version="1.1" encoding="utf-8" standalone="yes"?>', True),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>', True),
        ('<?xml version="1.0" encoding="UTF-16"?>', True),
        ('<?xml version="1.0" encoding="bogus"?>', False),
        ('<?xml version="1.0" encoding="rot13"?>', False),
        ('<?xml version="2.0"?>', False),
        ('<?xml version="1.0" standalone="maybe"?>', False),
        (' <?xml version="1.0"?>', False),
    ],
)
def test_a_declaration_is_refused_where_libvirt_refuses_it(declaration: str, valid: bool) -> None:
    """But for what it says of the encoding, it changes nothing: the text has come as text."""
    said = identified(f"{declaration}<domain><name>wéb</name></domain>")
    assert (said is not None, "wéb") == (valid, said.name if said is not None else "wéb")


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ("<domain><name>a</name><name>b</name></domain>", "a"),
        ("<domain><name> a </name></domain>", " a "),
        ("<domain><name/></domain>", ""),
        ("<domain><name>a<!-- x -->b</name></domain>", "ab"),
        ("<domain><name xmlns='urn:a'>a</name><name>b</name></domain>", "b"),
        ("<domain xmlns:n='urn:a'><n:name>a</n:name></domain>", None),
        ("<domain><n:name>a</n:name></domain>", None),
        ("<domain xmlns='urn:a'><name xmlns=''>a</name></domain>", "a"),
        ("<domain><other><name>a</name></other></domain>", None),
    ],
)
def test_the_name_is_what_libvirt_takes_for_it(document: str, name: str | None) -> None:
    """Else a domain could be addressed by one name and defined under another."""
    assert identify(document).name == name


def test_a_uuid_without_dashes_is_the_same_uuid() -> None:
    """Libvirt takes it, so it must not be another domain here."""
    bare = UUID.replace("-", "").upper()
    assert identify(f"<domain><uuid>{bare}</uuid></domain>").uuid == UUID
    document = f"<domain><uuid>{bare}</uuid><name>a</name></domain>"
    assert complete(document, name="a", uuid=UUID) == document


def test_a_name_that_would_not_fit_into_events_is_invalid() -> None:
    """It stands in each event of its domain."""
    assert identify(f"<domain><name>{'x' * MAX_NAME}</name></domain>").name == "x" * MAX_NAME
    with pytest.raises(Invalid, match="letters"):
        identify(f"<domain><name>{'x' * (MAX_NAME + 1)}</name></domain>")


def test_a_document_is_as_large_as_a_command_may_be() -> None:
    """And no larger."""
    with pytest.raises(Invalid, match="bytes"):
        identify(f"<domain>{' ' * domainxml.MAX_BYTES}</domain>")
