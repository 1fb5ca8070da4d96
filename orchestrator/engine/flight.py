"""A command on its way through the coordinator."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.control.intake import Order
from orchestrator.engine.lanes import Ticket
from orchestrator.engine.recent import Known
from orchestrator.protocol.error import Conflict


def _nothing() -> None:
    pass


class Flight:
    """An order, its turn, and what is known of other copies of it.

    cmd: its sequence in `VIRT_CMD`, 0 if it came by `api`, where somebody waits for its end. refusal: why it is not to be
    routed, found on admission. unsure: of an earlier command under its id only the result was heard, not what it was.
    safe: called once it is in the node's log or has its terminal event, so that nobody need read it again.
    """

    __slots__ = ("cmd", "known", "order", "refusal", "safe", "ticket", "unsure")

    def __init__(
        self,
        order: Order,
        ticket: Ticket,
        known: Known,
        *,
        cmd: int = 0,
        refusal: Conflict | None = None,
        unsure: bool = False,
        safe: Callable[[], None] = _nothing,
    ) -> None:
        self.order = order
        self.ticket = ticket
        self.known = known
        self.cmd = cmd
        self.refusal = refusal
        self.unsure = unsure
        self.safe = safe

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for its end."""
        return not self.cmd
