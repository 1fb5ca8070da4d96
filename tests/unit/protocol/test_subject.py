"""Laws of subjects and tokens: what is built parses back, what is malformed is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.protocol import token
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import Addressed, Routed, Subjects, Told, domain_key, split_domain_key

words = st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True).filter(lambda word: word != "_")
uuids = st.uuids().map(str)
subjects = Subjects()


@given(words, uuids, words)
def test_addressed_subjects_parse_back(project: str, uuid: str, verb: str) -> None:
    """`api` and `cmd` have one form."""
    assert subjects.parse_addressed(subjects.api(project, uuid, verb)) == Addressed(project, uuid, verb)
    assert subjects.parse_addressed(subjects.cmd(project, uuid, verb)) == Addressed(project, uuid, verb)


@given(words, words, uuids, words)
def test_routed_subjects_parse_back_also_as_pushed(node: str, project: str, uuid: str, verb: str) -> None:
    """A push names the same order as the message that was stored."""
    run = subjects.run(node, project, uuid, verb)
    assert subjects.parse_routed(run) == Routed(node, project, uuid, verb)
    assert subjects.parse_routed(subjects.delivery(run)) == Routed(node, project, uuid, verb)
    assert subjects.stored(subjects.delivery(run)) == run


@given(words, words, uuids)
def test_events_and_results_parse_back(node: str, project: str, uuid: str) -> None:
    """An event's name may have several tokens."""
    assert subjects.parse_event(subjects.evt(node, project, uuid, "lifecycle.started")) == Told(node, project, uuid, "lifecycle.started")
    assert subjects.parse_result(subjects.res(node, project, "id-1")) == (node, project, "id-1")
    assert split_domain_key(domain_key(node, project, uuid)) == (node, project, uuid)


@pytest.mark.parametrize("subject", ["virt.v1.api.p.d", "virt.v1.api.p.d.v.x", ""])
def test_a_subject_of_another_shape_is_invalid(subject: str) -> None:
    """The message gives the form."""
    with pytest.raises(Invalid, match="the form is"):
        subjects.parse_addressed(subject)


def test_everything_follows_the_prefix() -> None:
    """Streams, buckets and services too."""
    other = Subjects("acme")
    assert other.api("p", "_", "nodes") == "acme.v1.api.p._.nodes"
    assert (other.log_cmd, other.log_run, other.log_evt) == ("ACME_CMD", "ACME_RUN", "ACME_EVT")
    assert (other.bucket("nodes"), other.service("api")) == ("acme_nodes", "acme-api")
    with pytest.raises(Invalid, match="prefix"):
        Subjects("a.b")


@pytest.mark.parametrize("word", ["_", "", "a.b", "a b", "ä", "x" * 64, "a*", "a>", "a\n"])
def test_what_is_no_token_is_refused(word: str) -> None:
    """In every place."""
    for check in (token.project, token.node, token.domain):
        with pytest.raises(Invalid):
            check(word)


def test_uuids_compare_without_case() -> None:
    """They are lower case from the first check on."""
    assert token.uuid("6F1C0000-0000-4000-8000-00000000000A") == "6f1c0000-0000-4000-8000-00000000000a"
    assert token.domain("6F1C0000-0000-4000-8000-00000000000A") == "6f1c0000-0000-4000-8000-00000000000a"


def test_a_created_domain_has_the_uuid_that_its_command_gives() -> None:
    """UUIDv5 of `<project>/<id>` in our namespace: a repeat is the same domain."""
    assert token.derived_uuid("default", "a") == "768b68f4-93eb-5426-87eb-4b004c1935d0"
    assert token.derived_uuid("default", "a") != token.derived_uuid("other", "a")


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ulids_keep_their_time_and_sort_by_it(milliseconds: int, randomness: bytes) -> None:
    """26 letters, the first ten are the time."""
    ulid = token.ulid(milliseconds, randomness)
    assert len(ulid) == 26
    assert token.ulid_milliseconds(ulid) == milliseconds
    assert token.ulid(milliseconds + 1, bytes(10)) > ulid or milliseconds == 2**48 - 1


@pytest.mark.parametrize("identity", ["", "m-1", "a.b", "x" * 65, "a b"])
def test_ids_of_clients_have_a_form(identity: str) -> None:
    """`m-` is ours."""
    with pytest.raises(Invalid, match="id"):
        token.command_id(identity)
