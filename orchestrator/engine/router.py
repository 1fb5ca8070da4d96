"""The one way of all commands, by `api` and by `cmd`: a turn, a way, a place in the node's log, an end.

What stands fast, whatever fails (PROTOCOL §3-4):
- From the first attempt to store a command in `VIRT_RUN` on, only the node's worker ends it. What never came so far is
  ended here. So each command has one end.
- Whether a node is silent is not judged before routing: the log keeps what is meant for it, and the worker ends it when it is
  back, by doing it or as expired. Only who waits on `api` is told at once that the node does not answer, and that this is not
  the end. Refused is what is meant for a node with too much waiting already, and a new domain that no node can take.
- An attempt of unknown outcome is repeated under the same id until it is stored. By `api` until the deadline; by `cmd` for as
  long as it takes, since nobody would repeat it. Of several copies the worker runs the first.
- A command that creates keeps its turn until it has ended, all others until they are stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import msgspec

from orchestrator.bus.port import BusError, Link
from orchestrator.control.admission import IdTaken, differs
from orchestrator.control.intake import Heading, Malformed, Order
from orchestrator.engine.carrier import Carrier
from orchestrator.engine.ending import Ender
from orchestrator.engine.flight import Flight, Flights
from orchestrator.engine.lanes import Lanes, Ticket
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.owners import Owners
from orchestrator.engine.pace import Pace
from orchestrator.engine.recent import Known, Recent
from orchestrator.engine.route import Judged, Landed, Repeat, Route, Way, renamed
from orchestrator.engine.wayfinder import Wayfinder
from orchestrator.log import get_logger
from orchestrator.protocol.error import DeadlineExceeded, WireError
from orchestrator.protocol.subject import NONE

_PATIENCE_S = 1.0
"""Seconds that finding a way may take after the deadline: of a repeat the worker tells how the first ended."""

_log = get_logger()

T = TypeVar("T")


class Router:
    """Takes orders in, at once, and brings them to their nodes. `now` gives broker time, `fresh_id` an id that nobody has."""

    def __init__(
        self,
        mirror: Mirror,
        lanes: Lanes,
        recent: Recent,
        wayfinder: Wayfinder,
        carrier: Carrier,
        ender: Ender,
        owners: Owners,
        flights: Flights,
        *,
        link: Link,
        pace: Pace,
        now: Callable[[], float],
        fresh_id: Callable[[], str],
    ) -> None:
        self._mirror = mirror
        self._lanes = lanes
        self._recent = recent
        self._wayfinder = wayfinder
        self._carrier = carrier
        self._ender = ender
        self._owners = owners
        self._flights = flights
        self._link = link
        self._pace = pace
        self._now = now
        self._fresh_id = fresh_id

    def admit(self, order: Order, *, cmd: int = 0, safe: Callable[[], None] | None = None) -> Flight:
        """Give an order its place behind what came before it. Whoever admits it lets it `fly`."""
        known = self._recent.find(order.project, order.id)
        unsure = known is not None and known.digest is None
        taken = known is not None and _is_other(known, order)
        if known is None:
            known = self._recent.enter(order.project, order.id)
            known.digest = order.digest
            known.name = order.name if order.by_name else None
            known.uuid = order.uuid if order.uuid != NONE else None
        flight = Flight(
            order,
            self._join(order),
            known,
            cmd=cmd,
            refusal=IdTaken(order.id) if taken else None,
            unsure=unsure,
            safe=safe or _nothing,
        )
        if not taken:
            self._flights.enter(flight)
        return flight

    async def fly(self, flight: Flight) -> Landed:
        """Bring a command to its node or to its end. Cancelled at any moment it leaves nothing that a repeat does not heal."""
        try:
            try:
                return await self._land(flight, await self._way(flight))
            except WireError as error:
                return await self._end(flight, error)
        finally:
            flight.ticket.leave()
            self._flights.leave(flight)

    async def refuse(self, malformed: Malformed, *, cmd: int = 0) -> Landed:
        """End what cannot be routed; under an id of its own if the one it bears was used for something else."""
        known = self._recent.find(malformed.project, malformed.id)
        if known is not None and known.digest == malformed.digest and known.result is not None:
            return Landed(result=known.result)
        heading: Heading = malformed
        if known is not None:
            heading = msgspec.structs.replace(malformed, id=self._own_id(cmd), given=False)
        elif malformed.given:
            self._recent.enter(malformed.project, malformed.id).digest = malformed.digest
        return Landed(result=await self._ender.fail(heading, malformed.error, cmd=cmd))

    def _join(self, order: Order) -> Ticket:
        if order.target is not None:
            # No turn among the domain's commands, but one among those for the same command.
            return self._lanes.join(f"{order.project}/{order.target}/{order.verb}")
        keys = [order.uuid] if order.uuid != NONE else []
        if order.name is not None and (order.by_name or order.creates):
            keys.append(f"{order.project}/{order.name}")
        if order.uuid == NONE and order.name is not None:
            # Also by what it means, or will mean once what is before it has ended: others call the domain by that.
            meant = self._mirror.called(order.project, order.name) | self._mirror.coming(order.project, order.name)
            keys += [*sorted(meant), *self._lanes.beside(keys[0])]
        return self._lanes.join(*keys)

    async def _way(self, flight: Flight) -> Way:
        order = flight.order
        left = order.deadline - self._now()
        if left > 0 and flight.refusal is None and flight.withdrawn is None and (route := self._wayfinder.at_once(flight)) is not None:
            return route
        if flight.withdrawn is None and (left > 0 or order.given):
            with anyio.move_on_after(left if left > 0 else _PATIENCE_S) as flight.waiting:
                await flight.ticket.turn()
                if flight.refusal is not None:
                    raise flight.refusal
                return await self._tried(lambda: self._wayfinder.find(flight))
        if flight.withdrawn is not None:
            raise flight.withdrawn
        raise DeadlineExceeded(f"not begun within {order.command.timeout_s:g} s")

    async def _land(self, flight: Flight, way: Way) -> Landed:
        if isinstance(way, Route):
            landed = await self._carrier.carry(flight, way)
            await self._let_go(flight, landed)
            return landed
        if isinstance(way, Repeat):
            return await self._repeat(flight, way)
        earlier = await self._tried(lambda: self._wayfinder.earlier(flight.order))
        if earlier is not None:
            return await self._repeat(flight, earlier)
        changed, found = (way.changed, msgspec.to_builtins(way.fate)) if isinstance(way, Judged) else (False, None)
        return self._ended(flight, await self._ender.succeed(flight.order, changed=changed, found=found, cmd=flight.cmd))

    async def _end(self, flight: Flight, error: WireError) -> Landed:
        """End a command that was never routed; but if one of its id ended earlier, this is only its repeat."""
        order = flight.order
        if isinstance(error, IdTaken):
            order = msgspec.structs.replace(order, id=self._own_id(flight.cmd), given=False)
        else:
            earlier = await self._tried(lambda: self._wayfinder.earlier(order))
            if earlier is not None:
                return await self._repeat(flight, earlier)
        landed = self._ended(flight, await self._ender.fail(order, error, cmd=flight.cmd))
        if isinstance(error, IdTaken) and not flight.awaited and landed.result is not None:
            await self._ender.repeat(flight.order, renamed(landed.result, flight.order.id))
        if order is flight.order:
            await self._let_go(flight, landed)
        return landed

    def _ended(self, flight: Flight, result: bytes) -> Landed:
        flight.safe()
        return Landed(result=result)

    async def _repeat(self, flight: Flight, repeat: Repeat) -> Landed:
        """Answer a repeat with the first outcome: on `api` here, on `res` by who ended it."""
        flight.known.result = flight.known.result or repeat.result
        if not flight.awaited and NONE not in (repeat.node, repeat.uuid):
            return await self._carrier.carry(flight, Route(node=repeat.node, uuid=repeat.uuid, again=True))
        if not flight.awaited:
            await self._ender.repeat(flight.order, repeat.result)
        return self._ended(flight, repeat.result)

    async def _let_go(self, flight: Flight, landed: Landed) -> None:
        """Take back the owner record of a domain that its command provably did not make."""
        if not flight.order.creates or not landed.made_nothing:
            return
        with anyio.move_on_after(self._pace.look):
            try:
                await self._mirror.whereabouts_caught_up()
                owner = self._mirror.owners.get(flight.order.uuid)
                if owner is not None and not self._mirror.shows(owner.node, flight.order.uuid):
                    await self._owners.release(flight.order.uuid, flight.order.id)
            except BusError as error:
                _log.info("router.record_left", domain=flight.order.uuid, reason=str(error) or type(error).__name__)

    async def _tried(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do something that has no effect, or the same one each time, until the broker lets it be done."""
        while True:
            try:
                return await act()
            except BusError as error:
                _log.info("router.again", reason=str(error) or type(error).__name__)
            await anyio.sleep(self._pace.retry)
            await self._link.up()

    def _own_id(self, cmd: int) -> str:
        return f"m-cmd-{cmd}" if cmd else self._fresh_id()


def _is_other(known: Known, order: Order) -> bool:
    """Tell whether what is known of an id is of another command. What a name means may turn out only later."""
    names = order.by_name and differs(known.name, order.name)
    uuids = order.uuid != NONE and differs(known.uuid, order.uuid)
    return names or uuids or differs(known.digest, order.digest)


def _nothing() -> None:
    pass
