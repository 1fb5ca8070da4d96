"""Finding the way of a cancel: to the command that it is for, wherever that has got to (decision 5).

Who may end the target judges the cancel. As long as no copy of the target was tried to store in `VIRT_RUN`, that is the
coordinator that has it; then it is the node's worker, behind whose copy of the target the cancel is stored.
"""

from __future__ import annotations

import anyio

from orchestrator.control.intake import Order
from orchestrator.control.trace import Trace, domain_of, may_mean
from orchestrator.engine.flight import Flight, Flights
from orchestrator.engine.history import History
from orchestrator.engine.locator import Locator
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.peers import Peers, Wanted
from orchestrator.engine.recent import Recent
from orchestrator.engine.route import Judged, Repeat, Route
from orchestrator.engine.search import Search
from orchestrator.protocol import token
from orchestrator.protocol.cancel import Fate, TooLate, canceller, ended, fulfilled
from orchestrator.protocol.error import Invalid, NodeUnavailable, NotFound
from orchestrator.protocol.subject import NONE


class Canceller:
    """All that knows of commands, asked in the order of what it costs. All methods raise `Uncertain` and `Unavailable`."""

    def __init__(
        self,
        mirror: Mirror,
        flights: Flights,
        recent: Recent,
        locator: Locator,
        history: History,
        search: Search,
        peers: Peers,
        *,
        pause_s: float,
    ) -> None:
        """Look again after `pause_s` seconds for a target that is on its way."""
        self._mirror = mirror
        self._flights = flights
        self._recent = recent
        self._locator = locator
        self._history = history
        self._search = search
        self._peers = peers
        self._pause_s = pause_s

    async def find(self, flight: Flight) -> Route | Repeat | Judged:
        """Return the way of a cancel. Withdraws its target, where that can be; doing it again has no further effect.

        Raises `TooLate`, `NotFound`, `NodeUnavailable` (a node that might know the target does not answer), `Invalid`.
        """
        order, known = flight.order, flight.known
        uuid = known.uuid or domain_of(known.result)
        if known.node not in (None, NONE) and uuid != NONE and (flight.unsure or known.result is None):
            return Route(node=known.node or NONE, uuid=uuid, again=True)
        if known.result is not None:
            return Repeat(result=known.result, node=known.node or NONE, uuid=uuid)
        if order.target == order.id:
            raise Invalid("args.id: names the cancel itself; name the command that is to be cancelled")
        wanted = await self._wanted(order)
        trace = await self._trace(wanted)
        if trace is not None and may_mean(wanted.uuid, wanted.name, trace.uuid, trace.name):
            return await self._way(order, wanted, trace)
        silent = [] if trace is not None else await self._locator.silent_nodes()
        if silent:
            raise NodeUnavailable(f"whether there is a command {wanted.id!r} cannot be told: no answer from {', '.join(silent[:5])}")
        raise NotFound(f"no command {wanted.id!r} of this domain is known in project {order.project}")

    async def _wanted(self, order: Order) -> Wanted:
        uuid = order.uuid
        if order.name is not None:
            meant = await self._locator.known(order.project, order.name)
            uuid = meant.pop() if len(meant) == 1 else NONE
        return Wanted(project=order.project, id=order.target or "", by=order.id, uuid=uuid, name=order.name)

    async def _trace(self, wanted: Wanted) -> Trace | None:
        """Find the target, and wait for it while it is known to be on its way."""
        holder: str | None = None
        while True:
            trace = await self._looked(wanted)
            if trace is not None:
                return trace
            holder = await self._peers.withdraw(wanted, holder)
            if holder is None and not await self._search.comes(wanted.project, wanted.id):
                # It may have moved on while it was looked for.
                return await self._looked(wanted)
            await anyio.sleep(self._pause_s)

    async def _looked(self, wanted: Wanted) -> Trace | None:
        return await self._here(wanted) or await self._search.find(wanted.project, wanted.id, wanted.uuid)

    async def _here(self, wanted: Wanted) -> Trace | None:
        """Return what this coordinator knows of the target, once it is stored or has ended, if it is under way here."""
        held = self._flights.find(wanted.project, wanted.id)
        if held is not None and may_mean(wanted.uuid, wanted.name, held.order.uuid, held.order.name):
            if held.order.target is not None:
                raise TooLate(Fate(id=wanted.id, state="begun"))
            held.withdraw(wanted.by)
            await held.settled()
        known = self._recent.find(wanted.project, wanted.id)
        if known is None or (known.result is None and (known.node in (None, NONE) or known.uuid is None)):
            return None
        return Trace(node=known.node or NONE, uuid=known.uuid or domain_of(known.result), name=known.name, result=known.result)

    async def _way(self, order: Order, wanted: Wanted, trace: Trace) -> Route | Repeat | Judged:
        has_node = trace.node != NONE and token.is_uuid(trace.uuid)
        if has_node and (trace.result is None or self._mirror.living(trace.node)):
            return Route(node=trace.node, uuid=trace.uuid)
        if order.given and trace.uuid not in (NONE, order.uuid):
            # The cancel itself may have been judged before by a node that is away now.
            terminal = (await self._history.find(order.project, trace.uuid, order.id)).terminal
            if terminal is not None:
                return Repeat(result=terminal.result, node=terminal.node, uuid=trace.uuid)
        if trace.result is None:
            raise TooLate(Fate(id=wanted.id, state="begun"))
        return Judged(fulfilled(ended(wanted.id, trace.result)), changed=canceller(trace.result) == order.id)
