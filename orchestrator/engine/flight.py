"""A command on its way through the coordinator."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from orchestrator.control.intake import Order
from orchestrator.engine.lanes import Ticket
from orchestrator.engine.recent import Known
from orchestrator.protocol.cancel import CancelledBy
from orchestrator.protocol.error import Conflict


def _nothing() -> None:
    pass


class Flight:
    """An order, its turn, and what is known of other copies of it.

    cmd: its sequence in `VIRT_CMD`, 0 if it came by `api`, where somebody waits for its end. refusal: why it is not to be
    routed, found on admission. unsure: of an earlier command under its id only the result was heard, not what it was.
    safe: called once it is in the node's log or has its terminal event, so that nobody need read it again.
    waiting: in which it waits for its turn and its way. withdrawn: why it is not to be routed, found on its way.
    """

    __slots__ = ("_safe", "_settled", "cmd", "known", "order", "refusal", "ticket", "unsure", "waiting", "withdrawn")

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
        self.waiting: anyio.CancelScope | None = None
        self.withdrawn: CancelledBy | None = None
        self._safe = safe
        self._settled: anyio.Event | None = None

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for its end."""
        return not self.cmd

    def safe(self) -> None:
        """Take note that it is in the node's log, or has its terminal event."""
        self._safe()
        self.rest()

    def rest(self) -> None:
        """Take note that nobody tries to store it any more, be it that it is safe or that it was given up."""
        if self._settled is not None:
            self._settled.set()

    def withdraw(self, by: str) -> None:
        """Have it end as cancelled by command `by`, unless a copy was tried to store; if it ends otherwise meanwhile, that stands."""
        if self.withdrawn is None and self.known.node is None:
            self.withdrawn = CancelledBy(by)
            if self.waiting is not None:
                self.waiting.cancel()

    async def settled(self) -> None:
        """Wait until it is stored, has ended or was given up."""
        if not self.known.stored and self.known.result is None:
            self._settled = self._settled or anyio.Event()
            await self._settled.wait()


class Flights:
    """The commands under way at this coordinator, by project and id; of several copies the oldest."""

    def __init__(self) -> None:
        self._flights: dict[tuple[str, str], Flight] = {}

    def enter(self, flight: Flight) -> None:
        """Take in a flight."""
        self._flights.setdefault((flight.order.project, flight.order.id), flight)

    def leave(self, flight: Flight) -> None:
        """Forget a flight that is over."""
        key = flight.order.project, flight.order.id
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.rest()

    def find(self, project: str, id: str) -> Flight | None:
        """Return the flight of a command, None if it is not under way here."""
        return self._flights.get((project, id))
