"""What waits for one domain, and how it is told."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

import anyio

from workers.drivers.port import Happening, Sighting
from workers.engine.backlog import MAX_EVENTS
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.looks import Looks
from workers.engine.order import Order
from workers.engine.outbox import Draft, Outbox
from workers.journal.port import Entry


class DomainQueue:
    """One domain's events and orders; owned by one task, filled by others on the loop."""

    def __init__(self, uuid: str, inventory: Inventory, outbox: Outbox, looks: Looks) -> None:
        self.uuid = uuid
        self.orders: deque[Order] = deque()
        self.reminders: dict[int, asyncio.TimerHandle] = {}
        self.inspect = False
        self.strangers: dict[Hypervisor, None] = {}
        self.resting = False
        self.leaving = False
        self._inventory = inventory
        self._outbox = outbox
        self._looks = looks
        self._events: deque[tuple[Hypervisor, Happening]] = deque()
        self._missed: dict[Hypervisor, int] = {}
        self._arrived = anyio.Event()

    def push(self, hypervisor: Hypervisor, happening: Happening) -> None:
        """Add an event. One too many takes with it all that wait, and what comes until that is told: see `tell`."""
        if self._missed:
            self.miss(hypervisor, 1)
        elif len(self._events) < MAX_EVENTS:
            self._events.append((hypervisor, happening))
        else:
            for other, _ in self._events:
                self.miss(other, 1)
            self._events.clear()
            self.miss(hypervisor, 1)
        self._arrived.set()

    def miss(self, hypervisor: Hypervisor, count: int) -> None:
        """Take that events were too many to be kept."""
        self._missed[hypervisor] = self._missed.get(hypervisor, 0) + count
        self._arrived.set()

    @property
    def restless(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._events) or self.inspect or bool(self.strangers) or bool(self._missed)

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

    def pop(self) -> Order:
        """Take out the order whose turn it is."""
        order = self.orders.popleft()
        self._forget(order)
        return order

    def withdraw(self, entry: Entry) -> bool:
        """Take out the order of a command; False if it does not wait here."""
        for order in self.orders:
            if (order.entry.project, order.entry.id) == (entry.project, entry.id):
                self.orders.remove(order)
                self._forget(order)
                return True
        return False

    def _forget(self, order: Order) -> None:
        reminder = self.reminders.pop(order.entry.sequence, None)
        if reminder is not None:
            reminder.cancel()

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

    async def tell(self, cause: Entry | None = None, *, mark: bool = True) -> None:
        """Tell the events that wait, with the state that a look gives; without events, what a look shows to differ.

        Where events were too many to be kept, that stands between a gap and a resync of this domain's own. `mark` as in `Looks.at`.
        """
        self.inspect = False
        missed, self._missed = self._missed, {}
        hypervisor = self._inventory.homes.get(self.uuid) or next((one for one, _ in self._events), next(iter(missed), None))
        if hypervisor is None:
            await self._meet_all()
            return
        seen = self.take(hypervisor)
        self.strangers.update((other, None) for other in missed if other is not hypervisor)
        if hypervisor in missed:
            await self._interrupted(hypervisor, missed[hypervisor], "gap")
        now = await self._looks.seen(hypervisor, self.uuid, seen, mark=mark)
        fold = self._inventory.fold(hypervisor, self.uuid, seen, now, cause)
        if hypervisor in missed and not fold.drafts:
            fold = self._inventory.restate(self.uuid)
        if fold.drafts:
            await self._outbox.tell(fold.drafts, domains=fold.domains, effects=fold.effects)
        if hypervisor in missed:
            await self._interrupted(hypervisor, missed[hypervisor], "resync")
        if self.uuid not in self._inventory.known:
            self.strangers.update(dict.fromkeys(self._inventory.doubles.strangers(self.uuid)))
        await self._meet_all()

    async def _interrupted(self, hypervisor: Hypervisor, lost: int, side: Literal["gap", "resync"]) -> None:
        """Tell one side of the bracket around what became of events that were too many."""
        known = self._inventory.known.get(self.uuid)
        project, name = (known.project, known.name) if known is not None else (self._inventory.default_project, None)
        end = "from" if side == "gap" else "to"
        data = {"reason": "too many events", "hypervisor": hypervisor.uri, "lost": lost, end: self._outbox.end}
        await self._outbox.tell([Draft(name=f"stream.{side}", project=project, domain=self.uuid, data=data, domainname=name)])

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
        return await self._looks.seen(hypervisor, self.uuid, seen)
