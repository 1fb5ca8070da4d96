"""One hypervisor under supervision: opened, listened to, scanned, and opened again when it was lost.

Callbacks arrive on the driver's thread and cross to the loop in one hop. From each opening until the scan that follows
it they are held back, so that the scan can tell what they explain (see inventory). One that tells no events is polled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from orchestrator.log import get_logger
from orchestrator.protocol.node import Hypervisor as HypervisorRecord
from workers.domain.scope import EVERYTHING, Scope
from workers.drivers.port import Ability, Driver, DriverError, Happening
from workers.engine.backlog import Held
from workers.engine.lane import Lane, Lanes
from workers.engine.observer import Observer

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
POLL_S = 2.0
"""Seconds between two scans of a hypervisor that tells no events."""

Ails = Callable[["Hypervisor"], Awaitable[None]]
"""Told when a hypervisor stops working, and when it works again; its `ailment` says which."""

log = get_logger()


class Hypervisor(Observer):
    """A driver, kept open."""

    def __init__(
        self,
        driver: Driver,
        lanes: Lanes,
        incarnation: Callable[[], str],
        deliver: Callable[[Hypervisor, Happening], None],
        *,
        missed: Callable[[Hypervisor, str, int], None],
        scope: Scope = EVERYTHING,
    ) -> None:
        """`incarnation` makes a new ULID; `deliver` takes each live event on the loop. What is not in `scope` is left as it is.

        missed: takes of which domain how many events were too many to be kept.
        """
        super().__init__(driver, incarnation, scope)
        self.lanes = lanes
        self.held = Held()
        self.openings = 0
        self.ailment = ""
        self._deliver = deliver
        self._missed = missed
        self._live = False
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lost = anyio.Event()
        self._ready = anyio.Event()
        self._tried = anyio.Event()
        self._ails: Ails | None = None

    @property
    def uri(self) -> str:
        """The connection URI."""
        return self.driver.uri

    @property
    def reads(self) -> Lane:
        """Where looks at single domains run."""
        return self.lanes.reads

    @property
    def connected(self) -> bool:
        """Whether it is open and scanned."""
        return self._ready.is_set()

    @property
    def works(self) -> bool:
        """Whether it is connected and answers."""
        return self.connected and not self.ailment

    @property
    def tells(self) -> bool:
        """Whether it tells the life of its domains by itself."""
        return self.ability is not None and "lifecycle" in self.ability.events

    async def ready(self) -> None:
        """Wait until it is open and scanned."""
        await self._ready.wait()

    async def tried(self) -> None:
        """Wait until it is open and scanned, or could not be opened for the first time."""
        await self._tried.wait()

    def lack(self, verb: str) -> str:
        """Return what the hypervisor lacks for a verb, in words to be added to a sentence; '' where that is not known."""
        lacks = self.ability.lacks.get(verb) if self.ability is not None else None
        return f": {lacks}" if lacks else ""

    def record(self) -> HypervisorRecord:
        """Return what the node record says of it."""
        ability = self.ability or Ability(types=[], version="", verbs=[], events=[], arch="", cpus=0, memory_kib=0)
        return HypervisorRecord(
            uri=self.uri,
            types=ability.types,
            version=ability.version,
            verbs=ability.verbs,
            events=ability.events,
            connected=self.works,
        )

    async def run(
        self,
        opened: Callable[[Hypervisor, str], Awaitable[None]],
        polled: Callable[[Hypervisor], Awaitable[None]],
        ails: Ails,
    ) -> None:
        """Keep it open for ever; `ails` is told when its health changes.

        `opened` scans it (given why it had to be opened), after which its events flow; `polled` scans it now and then if it tells none.
        """
        self._loop, self._ails = asyncio.get_running_loop(), ails
        try:
            await self._keep_open(opened, polled)
        finally:
            self._over = True

    async def _keep_open(
        self, opened: Callable[[Hypervisor, str], Awaitable[None]], polled: Callable[[Hypervisor], Awaitable[None]]
    ) -> None:
        reason, attempt = "start", 0
        while True:
            self._live, self._lost = False, anyio.Event()
            try:
                self.ability = await self.lanes.supervision.submit(lambda: self.driver.open(self))
                self.openings += 1
                await opened(self, reason)
            except DriverError as error:
                log.warning("hypervisor not reachable", uri=self.uri, reason=str(error))
                self._tried.set()
                await self.fails(str(error))
                await anyio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            self._release()
            await self.recovers()
            await self._until_lost(polled)
            self._ready = anyio.Event()
            reason = "hypervisor connection lost"
            log.warning(reason, uri=self.uri)
            await self.fails(reason)

    async def fails(self, reason: str) -> None:
        """Note that it does not work, and tell it once."""
        first, self.ailment = not self.ailment, reason
        if first and self._ails is not None:
            await self._ails(self)

    async def recovers(self) -> None:
        """Note that it works again, and tell it if it did not."""
        failed, self.ailment = bool(self.ailment), ""
        if failed and self._ails is not None:
            await self._ails(self)

    async def _until_lost(self, polled: Callable[[Hypervisor], Awaitable[None]]) -> None:
        if self.tells:
            await self._lost.wait()
        while not self._lost.is_set():
            with anyio.move_on_after(POLL_S):
                await self._lost.wait()
                return
            try:
                await polled(self)
            except DriverError as error:
                # What is lost says so; what was refused is tried again.
                log.info("hypervisor not polled", uri=self.uri, reason=str(error))

    def happened(self, happening: Happening) -> None:
        """Take an event from the driver's thread."""
        self._cross(self._arrive, happening)

    def lost(self, reason: str) -> None:
        """Take from the driver's thread that the connection is gone."""
        self._cross(self._gone, reason)

    def _cross(self, call: Callable[..., None], argument: object) -> None:
        assert self._loop is not None  # noqa: S101 - a driver speaks only after `open`
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, argument)

    def _arrive(self, happening: Happening) -> None:
        if self._live and not self._over:
            self._deliver(self, happening)
        elif not self._over:  # else a driver that hangs in `close` still tells: nobody is there to listen
            self.held.add(happening)

    def _gone(self, reason: str) -> None:
        log.info("driver says", uri=self.uri, reason=reason)
        self._lost.set()

    def _release(self) -> None:
        self._live = True
        self._ready.set()
        self._tried.set()
        for happening in self.held.release():
            self._deliver(self, happening)
        lost = self.held.lost
        while lost:
            self._missed(self, *lost.popitem())
