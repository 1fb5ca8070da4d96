"""What waits for one domain, and how it is told."""

from __future__ import annotations

from collections import deque

import anyio

from orchestrator.log import get_logger
from workers.domain.observe import unreadable
from workers.drivers.port import DriverError, Happening, Sighting
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.lane import done_within
from workers.engine.order import Order
from workers.engine.outbox import Outbox
from workers.journal.port import Entry

LOOK_S = 10.0
"""Seconds that a look at a domain may take before its state is told as `unknown`."""

log = get_logger()


class DomainQueue:
    """One domain's events and orders; owned by one task, filled by others on the loop."""

    def __init__(self, uuid: str, inventory: Inventory, outbox: Outbox) -> None:
        self.uuid = uuid
        self.orders: deque[Order] = deque()
        self.inspect = False
        self.strangers: dict[Hypervisor, None] = {}
        self.resting = False
        self.leaving = False
        self._inventory = inventory
        self._outbox = outbox
        self._events: deque[tuple[Hypervisor, Happening]] = deque()
        self._arrived = anyio.Event()

    def push(self, hypervisor: Hypervisor, happening: Happening) -> None:
        """Add an event."""
        self._events.append((hypervisor, happening))
        self._arrived.set()

    @property
    def restless(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._events) or self.inspect or bool(self.strangers)

    def has(self, detail: str) -> bool:
        """Tell whether a lifecycle event with this detail waits."""
        return any(happening.event == "lifecycle" and happening.detail == detail for _, happening in self._events)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not (self.restless or self.orders)

    def add(self, order: Order) -> None:
        """Add an order."""
        self.orders.append(order)
        self._arrived.set()

    def withdraw(self, entry: Entry) -> bool:
        """Take out the order of a command; False if it does not wait here."""
        for order in self.orders:
            if (order.entry.project, order.entry.id) == (entry.project, entry.id):
                self.orders.remove(order)
                return True
        return False

    def wake(self) -> None:
        """Have the owner look at the queue."""
        self._arrived.set()

    async def arrival(self) -> None:
        """Wait until something further comes."""
        self._arrived = anyio.Event()
        await self._arrived.wait()

    def take(self, hypervisor: Hypervisor) -> list[Happening]:
        """Take out all events of `hypervisor` that wait. Those of others say that they have a domain with this UUID too."""
        self.strangers.update((other, None) for other, _ in self._events if other is not hypervisor)
        seen = [happening for other, happening in self._events if other is hypervisor]
        self._events.clear()
        return seen

    async def tell(self, cause: Entry | None = None) -> None:
        """Tell the events that wait, with the state that a look gives; without events, what a look shows to differ."""
        self.inspect = False
        hypervisor = self._inventory.homes.get(self.uuid) or (self._events[0][0] if self._events else None)
        if hypervisor is None:
            await self._meet_all()
            return
        seen = self.take(hypervisor)
        now = await self.look(hypervisor, seen)
        fold = self._inventory.fold(hypervisor, self.uuid, seen, now, cause)
        if fold.drafts:
            await self._outbox.tell(fold.drafts, domains=fold.domains, effects=fold.effects)
        if self.uuid not in self._inventory.known:
            self.strangers.update(dict.fromkeys(self._inventory.doubles.strangers(self.uuid)))
        await self._meet_all()

    async def _meet_all(self) -> None:
        strangers, self.strangers = self.strangers, {}
        for stranger in strangers:
            await self._meet(stranger)

    async def _meet(self, stranger: Hypervisor) -> None:
        """See what it means that a hypervisor shows this domain, or did, whose home is another one.

        A domain that its home has no more has moved; what both show is told, and what only the home shows is as it should be.
        """
        inventory, doubles = self._inventory, self._inventory.doubles
        there = await self.look(stranger, [])
        home, known = inventory.homes.get(self.uuid), inventory.known.get(self.uuid)
        if home is None or known is None or home is stranger:
            if there is not None:
                inventory.homes[self.uuid] = stranger
                self.inspect = True
            await doubles.part(self.uuid, stranger, stranger)
            return
        here = await self.look(home, []) if there is not None else None
        if there is None:
            await doubles.part(self.uuid, home, stranger)
        elif here is not None:
            await doubles.note(self.uuid, known.name, known.project, home, stranger)
        else:
            gone = inventory.fold(home, self.uuid, (), None)
            await self._outbox.tell(gone.drafts, domains=gone.domains, effects=gone.effects)
            await doubles.part(self.uuid, stranger, stranger)
            inventory.homes[self.uuid] = stranger
            self.inspect = True

    async def look(self, hypervisor: Hypervisor, seen: list[Happening]) -> Sighting | None:
        """Return the domain now, None where it is provably gone; what cannot be read in time is `unknown`."""
        call = hypervisor.reads.submit(lambda: hypervisor.sight(self.uuid))
        await done_within(call, LOOK_S)
        reason = f"no answer within {LOOK_S:g} s"
        if call.done():
            try:
                return call.result()
            except DriverError as error:
                reason = str(error)
        log.warning("domain cannot be read", uuid=self.uuid, reason=reason)
        known = self._inventory.known.get(self.uuid)
        nameless = Happening(uuid=self.uuid, name=known.name if known else "", event="", detail="", data={})
        return unreadable(known, seen[-1] if seen else nameless)
