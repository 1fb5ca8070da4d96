"""What ends at once instead of waiting for its turn: malformed, an id used for something else, too much, an old fence, overtaken."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from orchestrator.protocol.error import Busy, Conflict, NodeUnavailable, WireError
from workers.engine.order import Order
from workers.engine.progress import Progress
from workers.journal.fences import Fences
from workers.journal.port import Entry

MAX_OPEN = 1_000
"""Commands that may be unfinished on a node; what exceeds that ends as `busy`."""

MAX_OPEN_CANCELS = 2 * MAX_OPEN
"""The same for what cancels them: a full node is where one wants to."""


class Gate:
    """One node's judgement of new orders."""

    def __init__(
        self, node: str, progress: Progress, *, begun: Mapping[str, int], fences: Fences, crowd: Callable[[str], str]
    ) -> None:
        """begun: by UUID, the highest sequence begun. crowd: by UUID, why a domain takes no more for now, '' if it does."""
        self._node = node
        self._progress = progress
        self._begun = begun
        self._fences = fences
        self._crowd = crowd

    def refusal(self, order: Order, known: Entry | None) -> WireError | None:
        """Return what ends a new order at once, if anything. known: the other command that bears its id."""
        entry = order.entry
        if order.refused is not None:
            return order.refused
        if known is not None:
            return Conflict(f"id {entry.id!r} was used for {known.verb} of {known.uuid}, with another subject or body; choose a new id")
        out_of_turn = order.command is not None and order.command.verb.kind == "control"
        if (full := self._overfull(entry, out_of_turn=out_of_turn)) is not None:
            return full
        if entry.fence and entry.fence < (highest := self._fences.highest.get(entry.uuid, 0)):
            return Conflict(f"the order carries fence {entry.fence}, the domain has moved on to {highest}")
        if not out_of_turn and entry.sequence < self._begun.get(entry.uuid, 0):
            return Conflict("overtaken: a later command of this domain has begun already; send it again with a new id", retryable=True)
        if entry.fence:
            self._fences.see(entry.uuid, entry.fence)
        return None

    def forget(self, ended_before: float, present: Container[str]) -> None:
        """Drop the fences that the journal has forgotten; `present`: the UUIDs of the domains that are there."""
        self._fences.forget(ended_before, present)

    def _overfull(self, entry: Entry, *, out_of_turn: bool) -> WireError | None:
        if self._progress.open < (MAX_OPEN_CANCELS if out_of_turn else MAX_OPEN):
            crowd = "" if out_of_turn or entry.phase == "begun" else self._crowd(entry.uuid)
            return Busy(crowd) if crowd else None
        if entry.phase == "begun":
            return NodeUnavailable(
                f"node {self._node} lost its journal, and has too many commands in doubt to look into this one", outcome="unknown"
            )
        return Busy(f"node {self._node} has {self._progress.open} commands waiting; try again later, with a new id")
