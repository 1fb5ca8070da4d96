"""Finding the way of a command whose turn it is: to which node, or why nowhere."""

from __future__ import annotations

from orchestrator.bus.port import Start
from orchestrator.control.admission import IdTaken, differs, refused
from orchestrator.control.intake import Heading, Order
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.canceller import Canceller
from orchestrator.engine.creation import Creation
from orchestrator.engine.flight import Flight
from orchestrator.engine.history import History, Terminal
from orchestrator.engine.ledgers import Ledgers
from orchestrator.engine.locator import Locator
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.route import Nowhere, Repeat, Route, Way
from orchestrator.engine.search import Search
from orchestrator.protocol.error import NodeUnavailable, NotFound
from orchestrator.protocol.subject import NONE


class Wayfinder:
    """Joins what is known of earlier copies, of domains and of nodes. All methods raise `Uncertain` and `Unavailable`."""

    def __init__(
        self,
        mirror: Mirror,
        locator: Locator,
        creation: Creation,
        canceller: Canceller,
        history: History,
        ledgers: Ledgers,
        search: Search,
        backlog: Backlog,
    ) -> None:
        self._mirror = mirror
        self._locator = locator
        self._creation = creation
        self._canceller = canceller
        self._history = history
        self._ledgers = ledgers
        self._search = search
        self._backlog = backlog

    async def find(self, flight: Flight) -> Way:
        """Return the way. Has no effect but owner records, so it can be asked again.

        May wait for a command that is making the domain, and for the domain's turn where only now it turns out which it is.
        Raises the `WireError` that the command ends with, `IdTaken` where its id is another's.
        """
        order, known = flight.order, flight.known
        if order.target is not None:
            return await self._canceller.find(flight)
        uuid = await self._uuid(flight)
        if known.result is not None and (not flight.unsure or known.node in (None, NONE)):
            return Repeat(result=known.result, node=known.node or NONE, uuid=known.uuid or uuid)
        if known.node not in (None, NONE) and uuid != NONE:
            return Route(node=known.node or NONE, uuid=uuid, again=True)
        if known.result is not None:
            return Repeat(result=known.result, node=known.node or NONE, uuid=uuid)
        way: Way | None = None
        if order.creates:
            way = await self._creation.route(order)
        elif uuid != NONE:
            flight.ticket.extend(uuid)
            await flight.ticket.turn()
            way = await self._existing(order, uuid)
        if way is None:
            return await self._nowhere(order)
        if isinstance(way, Route):
            await self._check_room(way.node)
        return way

    def at_once(self, flight: Flight) -> Route | None:
        """Return the way where nothing need be asked or waited for, as with most commands; None: `find` it."""
        order, known = flight.order, flight.known
        fresh = known.result is None and known.node is None and not flight.unsure
        if order.creates or order.target is not None or order.uuid == NONE or not (fresh and flight.ticket.first):
            return None
        owner = self._mirror.owners.get(order.uuid)
        if owner is None or owner.project != order.project or owner.former or not self._mirror.shows(owner.node, order.uuid):
            return None
        if not self._mirror.living(owner.node) or refused(owner.node, self._backlog.known(owner.node), living=True):
            return None
        return Route(node=owner.node, uuid=order.uuid, fence=owner.epoch)

    async def earlier(self, heading: Heading) -> Repeat | Route | None:
        """Return what became of an earlier copy: how it ended, as far as the log of events or a living node can tell, or its node.

        Another coordinator, or this one before it was started again, may have sent it there: then it is that node's to end.
        """
        if not heading.given:
            return None
        # In this order: what has ended since the first look is not trimmed before its end can be seen by the second.
        coming = await self._search.stored(heading.project, heading.id, heading.uuid)
        terminal = (await self._history.find(heading.project, heading.uuid, heading.id)).terminal
        if terminal is None and coming is None and (heading.uuid == NONE or (isinstance(heading, Order) and heading.target is not None)):
            terminal = await self._anywhere(heading)
        if terminal is not None:
            return Repeat(result=terminal.result, node=terminal.node, uuid=heading.uuid)
        return None if coming is None else Route(node=coming.node, uuid=coming.uuid, again=True)

    async def _anywhere(self, heading: Heading) -> Terminal | None:
        """Return how a command ended that may have been for any domain: from nodes' ledgers, and of silent nodes from their events."""
        terminal, silent = await self._ledgers.ended(heading.project, heading.id)
        for node in sorted(silent) if terminal is None else ():
            ended = await self._history.terminals(node, heading.project, "*", Start(time=self._history.oldest))
            terminal = terminal or next((one for one in ended if one.id == heading.id), None)
        return terminal

    async def _uuid(self, flight: Flight) -> str:
        """Return the domain's UUID, `_` if the name means none. A name is resolved once: a repeat means what the first meant."""
        order, known = flight.order, flight.known
        uuid = order.uuid
        if uuid == NONE and known.uuid is not None and known.name == order.name:
            uuid = known.uuid
        if uuid == NONE:
            uuid = await self._locator.resolve(order.project, order.name or "") or NONE
        if uuid != NONE and differs(known.uuid, uuid):
            raise IdTaken(order.id)
        return uuid

    async def _existing(self, order: Order, uuid: str) -> Route | Repeat | None:
        place = await self._locator.settle(order.project, uuid, order.id)
        if place is None:
            return None
        owner = self._mirror.owners.get(uuid)
        if order.given and owner is not None and owner.former:
            # Another node had this domain within a day, and its ledger may know the command.
            terminal = (await self._history.find(order.project, uuid, order.id)).terminal
            if terminal is not None:
                return Repeat(result=terminal.result, node=terminal.node, uuid=uuid)
        return Route(node=place.node, uuid=uuid, fence=place.fence)

    async def _nowhere(self, order: Order) -> Nowhere:
        meant = order.name if order.by_name else order.uuid
        if order.verb != "undefine":
            raise NotFound(f"project {order.project} has no domain {meant}")
        silent = await self._locator.silent_nodes()
        if silent:
            more = f" and {len(silent) - 5} more" if len(silent) > 5 else ""
            raise NodeUnavailable(f"whether domain {meant} exists cannot be told: no answer from {', '.join(silent[:5])}{more}")
        return Nowhere()

    async def _check_room(self, node: str) -> None:
        refusal = refused(node, await self._backlog.waiting(node), living=self._mirror.living(node))
        if refusal is not None:
            raise refusal
