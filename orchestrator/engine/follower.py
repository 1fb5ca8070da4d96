"""The leader's reading of `VIRT_CMD`: each command once, into the lanes in the order of the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from orchestrator.bus.crowd import Crowd
from orchestrator.bus.port import Bus, BusError, Message, Reader, Start
from orchestrator.control.intake import Order, read
from orchestrator.engine.announcer import Announcer
from orchestrator.engine.carrier import Carrier
from orchestrator.engine.locator import Locator
from orchestrator.engine.pace import Pace
from orchestrator.engine.progress import Progress
from orchestrator.engine.route import Landed
from orchestrator.engine.router import Router
from orchestrator.log import get_logger
from orchestrator.protocol.subject import NONE, Subjects

MAX_UNFINISHED = 2_048
"""Commands under way at a time; the others wait in the log."""

_PORTION = 256
_WAIT_S = 5.0

_log = get_logger()


class LogLost(Exception):
    """The log of commands ends before what was read of it: the broker lost its tail."""


class Follower:
    """Follows the log for one term. Its flights run in the term's own tasks, and end with it."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        router: Router,
        locator: Locator,
        carrier: Carrier,
        announcer: Announcer,
        progress: Progress,
        *,
        name: str,
        pace: Pace,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._router = router
        self._locator = locator
        self._carrier = carrier
        self._announcer = announcer
        self._progress = progress
        self._name = f"{name}-cmd"
        self._pace = pace
        self._room = anyio.Semaphore(MAX_UNFINISHED)

    async def run(self) -> None:
        """Follow for ever. Raises `LogLost`."""
        position = self._progress.position.cmd
        async with Crowd() as flights:
            while True:
                await self._bus.link.up()
                try:
                    start = Start(sequence=position + 1)
                    reader = await self._bus.reader(self._subjects.log_cmd, self._name, self._subjects.cmds, start)
                    while True:
                        for message in await self._taken(reader, position):
                            await self._take_in(message, flights)
                            position = message.sequence
                except BusError as error:
                    _log.info("follower.again", reason=str(error) or type(error).__name__)
                await anyio.sleep(self._pace.retry)

    async def _taken(self, reader: Reader, position: int) -> list[Message]:
        messages = await reader.take(_PORTION, wait_s=_WAIT_S)
        if not messages:
            last = await self._bus.last(self._subjects.log_cmd, self._subjects.cmds)
            # What was read is purged from the beginning on, so a last one below it was stored anew.
            if last is not None and last.sequence < position:
                raise LogLost(f"the log of commands ends at {last.sequence}, {position} was read")
        return messages

    async def _take_in(self, message: Message, flights: Crowd) -> None:
        cmd = message.sequence
        order = read(
            self._subjects, message.subject, message.body, message.headers, own_id=lambda: f"m-cmd-{cmd}", received=message.time
        )
        if self._progress.is_done(cmd, order.id, f"m-cmd-{cmd}"):
            self._progress.skip(cmd)
            return
        try:
            self._room.acquire_nowait()
        except anyio.WouldBlock:
            await self._room.acquire()
        self._progress.note(self._carrier.reached, self._announcer.stored)
        self._progress.begin(cmd)
        if isinstance(order, Order):
            await self._know(order)
            # Its turn is taken before the next is read.
            flight = self._router.admit(order, cmd=cmd, safe=partial(self._progress.finish, cmd))
            flights.start(self._land(cmd, partial(self._router.fly, flight)))
        else:
            flights.start(self._land(cmd, partial(self._router.refuse, order, cmd=cmd)))

    async def _land(self, cmd: int, bring: Callable[[], Awaitable[Landed]]) -> None:
        try:
            await bring()
        except Exception:  # noqa: BLE001  the root of one command: a fault of ours must not stop the log
            _log.exception("follower.command_failed", cmd=cmd)
        finally:
            self._room.release()
        self._progress.finish(cmd)

    async def _know(self, order: Order) -> None:
        """See to it that a name is known, if it can be, before what follows in the log: that may mean the same domain by its UUID."""
        while order.uuid == NONE and order.name is not None and order.target is None:
            try:
                await self._locator.known(order.project, order.name)
            except BusError:
                await anyio.sleep(self._pace.retry)
                await self._bus.link.up()
            else:
                return
