"""Whether a command is the one that a cancel means."""

from __future__ import annotations

import pytest

from orchestrator.control.trace import domain_of, may_mean
from orchestrator.protocol import codec
from orchestrator.protocol.command import DomainRef, Result

ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


@pytest.mark.parametrize(
    ("said", "of", "expected"),
    [
        (("_", None), (ONE, "web1"), True),
        ((ONE, None), (ONE, None), True),
        ((ONE, None), (TWO, None), False),
        ((ONE, None), ("_", "web1"), True),
        ((ONE, "web1"), ("_", "web2"), False),
        (("_", "web1"), ("_", "web1"), True),
        (("_", "web1"), ("_", "web2"), False),
        (("_", "web1"), (ONE, None), True),
        ((ONE, "web1"), (ONE, "old-name"), True),
    ],
)
def test_only_what_is_known_of_both_can_contradict(said: tuple[str, str | None], of: tuple[str, str | None], expected: bool) -> None:
    """UUIDs decide where both have one, else names."""
    assert expected == may_mean(*said, *of)


def test_a_result_tells_its_domain_if_it_has_one() -> None:
    """`_` stands for none."""
    known = Result(id="a", verb="start", ok=True, node="n1", project="p", domain=DomainRef(uuid=ONE), duration_ms=0.0)
    unknown = Result(id="a", verb="start", ok=False, node="_", project="p", duration_ms=0.0)
    assert [ONE, "_", "_"] == [domain_of(codec.encode(known)), domain_of(codec.encode(unknown)), domain_of(None)]
