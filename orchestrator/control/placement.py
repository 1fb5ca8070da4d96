"""Where a new domain shall live: on the node that was named, else on the one with most free memory among those that can."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.protocol import token
from orchestrator.protocol.error import NoCapacity, NodeUnavailable, NotFound, Unsupported
from orchestrator.protocol.node import Hypervisor, Node

_REASONS = 5
"""Nodes that a refusal names; the others are counted."""


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What a new domain needs. type: of its XML. node, hypervisor (URI or type): as named by the sender, if at all."""

    project: str = token.DEFAULT_PROJECT
    verb: str
    type: str
    memory_kib: int
    node: str | None = None
    hypervisor: str | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A node that might take it. living: has a lease. reserved_kib: promised to domains that its record does not show yet."""

    node: Node
    living: bool
    reserved_kib: int = 0

    @property
    def free_kib(self) -> int:
        """Memory that is free and not promised."""
        return self.node.free_memory_kib - self.reserved_kib


def place(want: Want, candidates: Sequence[Candidate]) -> str:
    """Return the node's name; the same snapshot gives the same node (ties go to fewer domains, then to the lower name).

    A node that the sender named is taken even if it is not schedulable. Raises `NotFound`, `NodeUnavailable`, `Unsupported`
    for a named node, `NoCapacity` if none was named and none can.
    """
    if want.node is not None:
        return _named(want, want.node, candidates)
    refusals = {one.node.node: _refusal(want, one) for one in candidates}
    able = [one for one in candidates if not refusals[one.node.node]]
    if not able:
        raise NoCapacity(f"no node can take a domain of type {want.type!r}: {_told(refusals)}")
    return min(able, key=lambda one: (-one.free_kib, one.node.domain_count, one.node.node)).node.node


def _named(want: Want, name: str, candidates: Sequence[Candidate]) -> str:
    found = next((one for one in candidates if one.node.node == name), None)
    if found is None:
        known = ", ".join(sorted(one.node.node for one in candidates)[:_REASONS]) or "none"
        raise NotFound(f"args.node: there is no node {name!r}; known are: {known}")
    if not found.living:
        raise NodeUnavailable(f"node {name} does not answer: its lease has run out")
    lacking = _inability(want, found.node)
    if lacking:
        raise Unsupported(f"node {name} {lacking}")
    return name


def _refusal(want: Want, candidate: Candidate) -> str:
    if not candidate.living:
        return "does not answer"
    if not candidate.node.schedulable:
        return "takes no new domains"
    return _inability(want, candidate.node)


def _inability(want: Want, node: Node) -> str:
    """Return what the node lacks, '' if nothing: one of its hypervisors must be all that is wanted."""
    if node.projects and want.project not in node.projects:
        return f"serves no domains of project {want.project!r}"
    meant = [one for one in node.hypervisors if want.hypervisor in (None, one.uri, *one.types)]
    if not meant:
        return f"has no hypervisor {want.hypervisor!r}" if want.hypervisor else "has no hypervisor"
    able = [one for one in meant if _runs(one, want.type)]
    if not able:
        # What has not been open since its worker's start has told no types yet.
        lost = [one for one in meant if not one.types and not one.connected]
        told = [one for one in meant if one not in lost]
        refusals = [f"runs no domains of type {want.type!r} on {_uris(told)}"] if told else []
        return " and ".join([*refusals, *([f"has lost {_uris(lost)}"] if lost else [])])
    connected = [one for one in able if one.connected]
    if not connected:
        return f"has lost {_uris(able)}"
    if not any(want.verb in one.verbs for one in connected):
        return f"cannot {want.verb} on {_uris(connected)}"
    return ""


def _runs(hypervisor: Hypervisor, type: str) -> bool:
    # XML without a type is for the hypervisor to refuse: it knows the right words.
    return not type or type in hypervisor.types


def _uris(hypervisors: Sequence[Hypervisor]) -> str:
    return ", ".join(one.uri for one in hypervisors)


def _told(refusals: dict[str, str]) -> str:
    if not refusals:
        return "no node has announced itself yet"
    told = [f"{name} {reason}" for name, reason in sorted(refusals.items())]
    more = len(told) - _REASONS
    return "; ".join(told[:_REASONS]) + (f"; and {more} more" if more > 0 else "")
