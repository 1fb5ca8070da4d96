"""What each question is answered with: the `result` of its answer, as a struct (PROTOCOL §2)."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.protocol.command import Result
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Failure
from orchestrator.protocol.node import Node


class Recorded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command as a ledger has it.

    phase: `received`, `begun`, `ended`, `stored` (its terminal event is in the log). result: once it has ended.
    """

    id: str
    project: str
    node: str
    phase: str
    verb: str | msgspec.UnsetType = msgspec.UNSET
    subject: str | msgspec.UnsetType = msgspec.UNSET
    sequence: int | msgspec.UnsetType = msgspec.UNSET
    result: Result | None = None


class DomainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `get`."""

    domain: Observed


class XmlAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `xml`."""

    xml: str


class StatsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `stats`: figures under libvirt's bulk-stats names."""

    stats: dict[str, Any]


class CommandAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `command`."""

    command: Recorded


class DomainsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `domains`: a page; `next` is the `after` of the one that follows."""

    domains: list[Observed]
    next: str | msgspec.UnsetType = msgspec.UNSET


class NodesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `nodes`: a page; `next` is the `after` of the one that follows."""

    nodes: list[Node]
    next: str | msgspec.UnsetType = msgspec.UNSET


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer that says no. final: False where it ends only the waiting, and what was asked may still happen."""

    ok: bool
    error: Failure
    final: bool = True


ANSWERS: dict[str, type[msgspec.Struct]] = {
    "get": DomainAnswer,
    "xml": XmlAnswer,
    "stats": StatsAnswer,
    "command": CommandAnswer,
    "domains": DomainsAnswer,
    "nodes": NodesAnswer,
}
"""By question; a verb that changes a domain is answered with a `Result`."""


def of(verb: str) -> type[msgspec.Struct]:
    """Return what `verb` is answered with."""
    return ANSWERS.get(verb, Result)
