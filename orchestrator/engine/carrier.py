"""Bringing a command into its node's log, and waiting for its end where somebody does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import anyio

from orchestrator.bus.port import Bus, BusError, Full, Outgoing, Refused, Start, Uncertain
from orchestrator.control.lease import counts
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.flight import Flight
from orchestrator.engine.history import History
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.outcomes import SLACK_S, Outcomes, Waiter
from orchestrator.engine.pace import GRACE_S, TRY_S, Pace
from orchestrator.engine.route import Landed, Route
from orchestrator.log import get_logger
from orchestrator.protocol.command import HEADER_CMD, HEADER_DEADLINE, HEADER_FENCE, HEADER_ID
from orchestrator.protocol.error import Busy, DeadlineExceeded, Internal, NodeUnavailable
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.subject import NONE, Subjects

_log = get_logger()


class Carrier:
    """Stores commands in `VIRT_RUN`. `now` gives broker time, `monotonic` the seconds of the loop's own clock."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        mirror: Mirror,
        outcomes: Outcomes,
        history: History,
        backlog: Backlog,
        *,
        pace: Pace,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._outcomes = outcomes
        self._history = history
        self._backlog = backlog
        self._pace = pace
        self._now = now
        self._monotonic = monotonic
        self.reached = 0
        """The highest sequence in `VIRT_RUN` that a command of ours got."""

    async def carry(self, flight: Flight, route: Route) -> Landed:
        """Store a command and, by `api` or if it creates, wait for its end.

        Raises `Busy`, `Cancelled`, `DeadlineExceeded`, `Internal` only where it is certain that nothing was stored.
        """
        order = flight.order
        waits = flight.awaited or (order.creates and flight.known.result is None)
        wait = partial(self._outcomes.waiter, route.node, order.project, route.uuid, order.id)
        arm = wait(since=order.received, verb=order.verb) if waits else nullcontext()
        with arm as waiter:
            if not (route.again and flight.known.stored and flight.known.result is None):
                sequence = await self._append(flight, route)
                if sequence is None:
                    return self._not_stored(flight, route)
                self._stored(flight, route, sequence)
                if waiter is not None:
                    waiter.also(f"m-run-{sequence}")
            flight.safe()
            if not order.creates:
                flight.ticket.leave()
            return Landed() if waiter is None else await self._end(flight, route, waiter)

    def _stored(self, flight: Flight, route: Route, sequence: int) -> None:
        flight.known.stored = True
        self.reached = max(self.reached, sequence)
        if flight.known.result is None:
            self._backlog.enter(route.node, flight.order.project, flight.order.id, sequence)

    async def _end(self, flight: Flight, route: Route, waiter: Waiter) -> Landed:
        if flight.awaited and self._silent(route.node):
            return self._gave_up(flight, route)
        result = await waiter.ended(max(flight.order.deadline + GRACE_S - self._now(), GRACE_S))
        return self._gave_up(flight, route) if result is None else Landed(result=result)

    def _not_stored(self, flight: Flight, route: Route) -> Landed:
        if flight.known.result is None:
            return self._gave_up(flight, route)
        flight.safe()
        return Landed(result=flight.known.result)

    def _gave_up(self, flight: Flight, route: Route) -> Landed:
        """End the waiting of who asked on `api`; the command's own end is still to come."""
        order = flight.order
        if self._silent(route.node):
            gone = f"node {route.node} does not answer; the command waits there until its deadline, ask again with the same id"
            return Landed(gave_up=NodeUnavailable(gone, outcome="unknown"))
        late = f"no end within {order.command.timeout_s:g} s; ask again with the same id to learn it"
        return Landed(gave_up=DeadlineExceeded(late, outcome="unknown"))

    def _silent(self, node: str) -> bool:
        link = self._bus.link
        session_s = self._monotonic() - link.since if link.connected else 0.0
        return counts(living=self._mirror.living(node), session_s=session_s)

    async def _append(self, flight: Flight, route: Route) -> int | None:
        """Store the command and return its sequence.

        None where an attempt of unknown outcome was given up at the deadline, or another coordinator has ended the command meanwhile.
        """
        message = self._message(flight, route)
        began, pause, attempted = self._monotonic(), self._pace.retry, route.again
        fresh, retried = flight.known.result is None and flight.order.given, False
        if flight.withdrawn is not None and not route.again:
            raise flight.withdrawn
        flight.known.node, flight.known.uuid = route.node, route.uuid
        while True:
            try:
                if retried and fresh and await self._ended_elsewhere(flight):
                    return None
                retried = True
                return await self._bus.append(message)
            except Uncertain:
                attempted = True
            except Refused as error:
                if not attempted:
                    flight.known.node = None
                    raise _unstored(error) from error
                _log.warning("router.refused_later", subject=message.subject, reason=str(error))
            except BusError as error:
                _log.info("router.again", subject=message.subject, reason=str(error) or type(error).__name__)
            left = min(flight.order.deadline - self._now(), began + TRY_S - self._monotonic())
            if left <= 0 and not attempted:
                flight.known.node = None
                raise DeadlineExceeded("the broker could not be reached before the deadline")
            if left <= 0 and flight.awaited:
                return None
            await self._pause(pause, left if flight.awaited or not attempted else None)
            pause = min(pause * 2, self._pace.retry * 10)

    async def _ended_elsewhere(self, flight: Flight) -> bool:
        """Tell whether a coordinator has ended the command, and learn how: while this one was cut off, others were asked again."""
        order = flight.order
        ended = await self._history.terminals(NONE, order.project, order.uuid, Start(time=order.received - SLACK_S))
        result = next((one.result for one in ended if one.id == order.id), None)
        if result is not None:
            flight.known.result, flight.known.node = result, NONE
        return result is not None

    async def _pause(self, seconds: float, left: float | None) -> None:
        with anyio.move_on_after(left):
            await anyio.sleep(seconds)
            await self._bus.link.up()

    def _message(self, flight: Flight, route: Route) -> Outgoing:
        order = flight.order
        headers = {HEADER_ID: order.id, HEADER_DEADLINE: timestamp(order.deadline), **order.trace}
        if route.fence:
            headers[HEADER_FENCE] = str(route.fence)
        if flight.cmd:
            headers[HEADER_CMD] = str(flight.cmd)
        return Outgoing(self._subjects.run(route.node, order.project, route.uuid, order.verb), order.body, headers)


def _unstored(error: Refused) -> Busy | Internal:
    if isinstance(error, Full):
        return Busy("the log of commands is full; try again later, with a new id")
    return Internal(f"the broker refused the command: {error}")
