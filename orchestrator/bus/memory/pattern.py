"""Subject filters as the broker reads them: `*` is one token, `>` is all that follows."""

from __future__ import annotations

import re
from functools import lru_cache

_GROUPS = {"*": r"([^.]+)", ">": r"(.+)"}
_TOKEN = re.compile(r"(?:\{\{wildcard\((\d+)\)\}\}|\$(\d+))\Z")


@lru_cache(maxsize=16_384)
def _compiled(subjects: str) -> re.Pattern[str]:
    return re.compile(r"\.".join(_GROUPS.get(token) or re.escape(token) for token in subjects.split(".")))


def takes(subjects: str, subject: str) -> bool:
    """Tell whether the filter `subjects` takes `subject`."""
    return _compiled(subjects).fullmatch(subject) is not None


def is_literal(subjects: str) -> bool:
    """Tell whether a filter has no wildcard, so that it takes one subject only."""
    return head(subjects) == subjects


@lru_cache(maxsize=16_384)
def head(subjects: str) -> str:
    """Return the tokens of a filter before its first wildcard."""
    tokens = subjects.split(".")
    literal = next((place for place, token in enumerate(tokens) if token in _GROUPS), len(tokens))
    return ".".join(tokens[:literal])


def heads(subject: str) -> list[str]:
    """Return each `head` that a filter taking `subject` can have."""
    tokens = subject.split(".")
    return [".".join(tokens[:count]) for count in range(len(tokens) + 1)]


def overlap(one: str, other: str) -> bool:
    """Tell whether there can be a subject that both filters take."""
    ours, theirs = one.split("."), other.split(".")
    for mine, yours in zip(ours, theirs, strict=False):
        if ">" in (mine, yours):
            return True
        if mine != yours and "*" not in (mine, yours):
            return False
    return len(ours) == len(theirs)


def mapped(subject: str, source: str, destination: str) -> str | None:
    """Return what the mapping from `source` to `destination` makes of `subject`, None if it is not for it.

    `{{wildcard(2)}}` or `$2` in the destination is what the second `*` took, `>` what `>` took.
    """
    match = _compiled(source).fullmatch(subject)
    if match is None:
        return None
    taken = match.groups()
    return ".".join(_part(part, taken) for part in destination.split("."))


def _part(part: str, taken: tuple[str, ...]) -> str:
    if part == ">":
        return taken[-1]
    place = _TOKEN.match(part)
    return taken[int(place[1] or place[2]) - 1] if place else part
