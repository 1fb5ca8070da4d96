"""Orders: whatever lies in the `run` log is a command or a reason why it is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.bus.port import Message
from orchestrator.protocol import codec, token
from orchestrator.protocol.command import HEADER_DEADLINE, HEADER_FENCE, HEADER_ID, HEADER_TRACEPARENT
from orchestrator.protocol.subject import NONE, Subjects
from workers.engine.order import Order, read_order

SUBJECTS = Subjects()
UUID = "6f1c0000-0000-4000-8000-000000000001"
NAMES = [HEADER_ID, HEADER_DEADLINE, HEADER_FENCE, HEADER_TRACEPARENT]
MOMENTS = st.datetimes().map(lambda moment: f"{moment.isoformat()}+23:59") | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31"])


def order(body: bytes = b"", headers: dict[str, str] | None = None, subject: str = "") -> Order:
    """Read a message of the log."""
    at = subject or SUBJECTS.run("n1", "p", UUID, "start")
    return read_order(Message(subject=at, body=body, headers=headers or {}, sequence=7, time=1000.0), SUBJECTS)


@given(
    st.text(max_size=60) | st.lists(st.text(max_size=5), min_size=7, max_size=7).map(".".join),
    st.binary(max_size=100),
    st.dictionaries(st.sampled_from(NAMES), st.text(max_size=80) | MOMENTS),
)
def test_reading_an_order_never_raises_and_what_it_gives_are_tokens(subject: str, body: bytes, headers: dict[str, str]) -> None:
    """So it can always be told of, on a subject that there may be."""
    for at in (subject, ""):
        made = order(body, headers, at)
        entry = made.entry
        assert (made.command is None) == (made.refused is not None)
        assert entry.project == NONE or token.is_word(entry.project)
        assert entry.uuid == NONE or token.is_uuid(entry.uuid)
        assert 1 <= len(entry.id) <= 64
        codec.encode(entry)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({HEADER_DEADLINE: "tomorrow"}, "Virt-Deadline: 'tomorrow' is no RFC 3339 time; use the form"),
        ({HEADER_DEADLINE: "2026-01-01T00:00:00"}, "has no zone; end it with Z"),
        ({HEADER_FENCE: "-1"}, "Virt-Fence: '-1' is no number; use"),
        ({HEADER_FENCE: "9" * 5000}, "is no number"),
        ({HEADER_TRACEPARENT: "0" * 5000}, "traceparent: 5000 letters; at most 512"),
        ({HEADER_ID: "a b"}, "id: use 1 to 64"),
    ],
)
def test_a_wrong_header_is_named_with_the_remedy(headers: dict[str, str], words: str) -> None:
    """And travels no further, where it would not fit."""
    made = order(headers=headers)
    assert made.refused is not None
    assert words in made.refused.message
    assert all(len(value) <= 512 for name, value in made.entry.headers.items() if name == HEADER_TRACEPARENT)
