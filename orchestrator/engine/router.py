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
from functools import partial
from typing import TypeVar

import anyio
import msgspec

from orchestrator.bus.port import BusError, Link, Stale
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
from orchestrator.protocol import codec
from orchestrator.protocol.error import DeadlineExceeded, WireError
from orchestrator.protocol.subject import NONE

_PATIENCE_S = 1.0
"""Seconds that finding a way may take after the deadline: of a repeat the worker tells how the first ended."""

_log = get_logger()

T = TypeVar("T")


class _Heard(msgspec.Struct, frozen=True):
    """The part of a result that tells one command from another; None: not known."""

    class Error(msgspec.Struct, frozen=True):
        """The part of its error."""

        code: str

    verb: str | None = None
    error: Error | None = None

    @property
    def code(self) -> str | None:
        """The error's code, `ok` if there was none, None where nothing was heard."""
        return None if self.verb is None else "ok" if self.error is None else self.error.code


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
        known = self._recent.find(malformed.project, malformed.id) if malformed.given else None
        if known is not None and _is_other_malformed(known, malformed):
            other = msgspec.structs.replace(malformed, id=self._own_id(cmd), given=False)
            return Landed(result=await self._ender.fail(other, malformed.error, cmd=cmd))
        known = known or self._recent.enter(malformed.project, malformed.id)
        known.digest = malformed.digest
        fail = partial(self._ender.fail, error=malformed.error, cmd=cmd)
        ended = await self._ended_once(malformed, known, partial(fail, malformed))
        if isinstance(ended, bytes):
            return Landed(result=ended)
        if isinstance(ended, Repeat) and _is_refusal_of(ended.result, malformed):
            return Landed(result=ended.result)
        return Landed(result=await fail(msgspec.structs.replace(malformed, id=self._own_id(cmd), given=False)))

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
        known = flight.known
        if isinstance(way, Route) and known.ending is not None:
            async with known.ending:
                pass  # another copy of it may be ended here: what has ended is routed no more
            if known.result is not None:
                way = Repeat(result=known.result, node=NONE, uuid=way.uuid)
        if isinstance(way, Route):
            landed = await self._carrier.carry(flight, way)
            await self._let_go(flight, landed)
            return landed
        if isinstance(way, Repeat):
            return await self._repeat(flight, way)
        changed, found = (way.changed, msgspec.to_builtins(way.fate)) if isinstance(way, Judged) else (False, None)
        succeed = partial(self._ender.succeed, flight.order, changed=changed, found=found, cmd=flight.cmd)
        return await self._conclude(flight, await self._ended_once(flight.order, known, succeed))

    async def _end(self, flight: Flight, error: WireError) -> Landed:
        """End a command that was never routed; but if one of its id was, or ended earlier, this is only its repeat."""
        error = flight.refusal or error
        if isinstance(error, IdTaken):
            return await self._end_renamed(flight, error)
        order, known = flight.order, flight.known
        if known.node not in (None, NONE) and known.result is None:
            # Another copy was tried to store: its node ends it, and nobody else.
            return await self._land(flight, Route(node=known.node or NONE, uuid=known.uuid or order.uuid, again=True))
        fail = partial(self._ender.fail, order, error, cmd=flight.cmd)
        return await self._conclude(flight, await self._ended_once(order, known, fail))

    async def _end_renamed(self, flight: Flight, error: IdTaken) -> Landed:
        """End a command whose id belongs to another under an id of its own."""
        order = msgspec.structs.replace(flight.order, id=self._own_id(flight.cmd), given=False)
        landed = self._ended(flight, await self._ender.fail(order, error, cmd=flight.cmd))
        if not flight.awaited and landed.result is not None:
            await self._ender.repeat(flight.order, renamed(landed.result, flight.order.id))
        return landed

    async def _ended_once(self, heading: Heading, known: Known, end: Callable[..., Awaitable[bytes]]) -> bytes | Repeat | Route:
        """End a command and return its result, or what became of another copy of it, here or at another coordinator."""
        known.ending = known.ending or anyio.Lock()
        async with known.ending:
            while known.result is None:
                fence = await self._tried(lambda: self._ender.fence(heading))
                earlier = await self._tried(lambda: self._wayfinder.earlier(heading))
                if earlier is not None:
                    return earlier
                try:
                    return await end(fence=fence)
                except Stale:
                    _log.info("router.again", id=heading.id, reason="another coordinator ended a command of this domain meanwhile")
            return known.result

    async def _conclude(self, flight: Flight, ended: bytes | Repeat | Route) -> Landed:
        if isinstance(ended, Repeat):
            return await self._repeat(flight, ended)
        landed = await self._carrier.carry(flight, ended) if isinstance(ended, Route) else self._ended(flight, ended)
        await self._let_go(flight, landed)
        return landed

    def _ended(self, flight: Flight, result: bytes) -> Landed:
        flight.safe()
        return Landed(result=result)

    async def _repeat(self, flight: Flight, repeat: Repeat) -> Landed:
        """Answer a repeat with the first outcome: on `api` here, on `res` by who ended it. By its verb it may turn out to be none."""
        if differs(codec.decode(repeat.result, _Heard).verb, flight.order.verb):
            flight.known.digest, flight.known.result = None, repeat.result
            return await self._end_renamed(flight, IdTaken(flight.order.id))
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
    return names or uuids or differs(known.digest, order.digest) or differs(_heard(known).verb, order.verb)


def _is_other_malformed(known: Known, malformed: Malformed) -> bool:
    """Tell whether what is known of an id is not this malformed command."""
    return differs(known.digest, malformed.digest) or not _may_refuse(_heard(known), malformed)


def _is_refusal_of(result: bytes, malformed: Malformed) -> bool:
    """Tell whether a result may be how this malformed command ended."""
    return _may_refuse(codec.decode(result, _Heard), malformed)


def _may_refuse(heard: _Heard, malformed: Malformed) -> bool:
    return not differs(heard.verb, malformed.verb) and not differs(heard.code, "invalid")


def _heard(known: Known) -> _Heard:
    """Return what the result of a command tells of it, of which only that was heard."""
    if known.digest is not None or known.result is None:
        return _Heard()
    return codec.decode(known.result, _Heard)


def _nothing() -> None:
    pass
