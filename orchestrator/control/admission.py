"""Whether a command is a repeat, and whether its node takes more."""

from __future__ import annotations

from orchestrator.protocol.error import Busy, Conflict, NodeUnavailable, WireError

MAX_WAITING = 1_000
"""Commands that may wait on a node; what would come on top is refused (PROTOCOL §3)."""


class IdTaken(Conflict):
    """The id belongs to another command, so this one ends under an id of its own."""

    def __init__(self, id: str) -> None:
        super().__init__(f"id {id!r} was used for another command, with another subject or body; choose a new id")


def differs(known: str | None, told: str | None) -> bool:
    """Tell whether what is known of a command and what a later one of its id says contradict; None: nothing is known or said."""
    return known is not None and told is not None and known != told


def refused(node: str, waiting: int, *, living: bool) -> WireError | None:
    """Return why a node takes no more, None if it does. A silent node still takes some: it may be back before they expire."""
    if waiting <= MAX_WAITING:
        return None
    if living:
        return Busy(f"node {node} has {waiting} commands waiting; try again later, with a new id")
    return NodeUnavailable(f"node {node} does not answer, and {waiting} commands wait for it; try again later, with a new id")
