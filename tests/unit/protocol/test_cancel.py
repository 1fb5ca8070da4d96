"""What a cancel finds, as it stands on the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator.protocol import codec
from orchestrator.protocol.cancel import CancelledBy, Fate, TooLate, canceller, ended, finding, fulfilled
from orchestrator.protocol.command import Result, decode_command
from orchestrator.protocol.error import DeadlineExceeded, Internal, Invalid, WireError
from orchestrator.protocol.verb import find


def result(error: WireError | None) -> bytes:
    """Return the result of a command that `error` ended."""
    failure: Any = msgspec.UNSET if error is None else error.failure()
    found: Any = msgspec.UNSET if error is None else finding(error)
    return codec.encode(
        Result(id="t", verb="start", ok=error is None, node="n1", project="p", error=failure, result=found, duration_ms=1.0)
    )


@pytest.mark.parametrize(
    ("error", "state", "word"),
    [
        (None, "succeeded", "succeeded"),
        (Internal("no"), "failed", "failed"),
        (DeadlineExceeded("late"), "expired", "expired before it began"),
        (DeadlineExceeded("late", outcome="unknown"), "failed", "failed"),
    ],
)
def test_an_end_of_another_kind_is_a_conflict_that_tells_it(error: WireError | None, state: str, word: str) -> None:
    """With all that is recorded of it."""
    fate = ended("t", result(error))
    with pytest.raises(TooLate) as late:
        fulfilled(fate)
    assert f"command 't' has ended already: it {word}" == late.value.message
    assert {"id": "t", "state": state, "recorded": codec.decode(result(error), dict)} == finding(late.value)


def test_what_was_cancelled_is_what_a_cancel_is_for() -> None:
    """And tells which one it was."""
    raw = result(CancelledBy("c"))
    assert Fate(id="t", state="cancelled") == fulfilled(ended("t", raw))
    assert ("c", None, None) == (canceller(raw), canceller(result(None)), canceller(result(Internal("no"))))
    assert {"id": "t", "state": "cancelled"} == msgspec.to_builtins(ended("t", raw))


def test_what_has_begun_cannot_be_stopped() -> None:
    """Nothing is recorded of it yet."""
    late = TooLate(Fate(id="t", state="begun"))
    assert ("conflict", "none", False) == (late.code, late.outcome, late.retryable)
    assert {"id": "t", "state": "begun"} == finding(late)


def test_a_cancel_takes_no_condition() -> None:
    """There is no turn to judge it at."""
    verb = find("cancel", "control")
    assert "c" == decode_command(verb, b'{"id": "c", "args": {"id": "t"}}', {}).id
    for body in (b'{"args": {"id": "t"}, "if": {"state": "running"}}', b'{"args": {}}', b"{}", b'{"args": {"id": "t", "more": 1}}'):
        with pytest.raises(Invalid):
            decode_command(verb, body, {})
