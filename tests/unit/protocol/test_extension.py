"""Laws of verbs of one's own: registered they are known as all others, and what cannot be one is refused by name."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from orchestrator.protocol.error import Invalid
from orchestrator.protocol.extension import enlist, register
from orchestrator.protocol.verb import VERBS, Args, NoArgs, Verb, XmlArgs, find


class Loose(msgspec.Struct, frozen=True):
    """Arguments that let anything pass."""


class Point:
    """An entry point."""

    name = "mine"

    def __init__(self, value: object) -> None:
        self._value = value

    def load(self) -> object:
        """Give the value, or fail with it."""
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Leave the registry as it was."""
    before = dict(VERBS)
    yield
    VERBS.clear()
    VERBS.update(before)


def test_a_registered_verb_is_found() -> None:
    """Registered again, or enlisted, it is the same."""
    trim = Verb(name="trim", summary="give blocks back")
    assert register(trim) is trim
    enlist([Point(trim), Point(trim)])
    assert find("trim", "verb") == trim


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        (Verb(name="start", summary="another start"), "there is one"),
        (Verb(name="a.b", summary="no token"), "no token"),
        (Verb(name="make", args=XmlArgs, creates=True, summary="creates"), "exists"),
        (Verb(name="look", kind="query", summary="reads"), "change"),
        (Verb(name="loose", args=Loose, summary="takes anything"), "forbid_unknown_fields"),
    ],
)
def test_what_cannot_be_a_verb_is_refused(verb: Verb, reason: str) -> None:
    """And the registry stays as it was."""
    before = dict(VERBS)
    with pytest.raises(Invalid, match=reason):
        register(verb)
    assert before == VERBS


@pytest.mark.parametrize("value", [ImportError("no module"), AttributeError("no such name"), NoArgs, "trim"])
def test_a_broken_entry_point_is_named(value: object) -> None:
    """Who reads the sentence knows which package to mend."""
    with pytest.raises(Invalid, match="'mine'"):
        enlist([Point(value)])


def test_every_struct_of_the_registry_is_strict() -> None:
    """What is asked of others holds for ours."""
    kinds: set[type[Args]] = {verb.args for verb in VERBS.values()}
    assert [kind for kind in kinds if not kind.__struct_config__.forbid_unknown_fields] == []
