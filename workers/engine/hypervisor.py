"""One hypervisor under supervision: opened, listened to, scanned, and opened again when it was lost.

Callbacks arrive on the driver's thread and cross to the loop in one hop. From each opening until the scan that follows
it they are held back, so that the scan can tell what they explain (see inventory).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import msgspec
import structlog

from orchestrator.protocol.node import Hypervisor as HypervisorRecord
from workers.drivers.port import Ability, Driver, DriverError, Happening, Impossible, Missing, Rejected, Sighting
from workers.engine.lane import Lane

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger()


class Hypervisor:
    """A driver, kept open."""

    def __init__(
        self, driver: Driver, reads: Lane, incarnation: Callable[[], str], deliver: Callable[[Hypervisor, Happening], None]
    ) -> None:
        """`incarnation` makes a new ULID; `deliver` takes each live event on the loop."""
        self.driver = driver
        self.reads = reads
        self.ability: Ability | None = None
        self.held: list[Happening] = []
        self._incarnation = incarnation
        self._deliver = deliver
        self._live = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lost = anyio.Event()
        self._ready = anyio.Event()
        self._tried = anyio.Event()

    @property
    def uri(self) -> str:
        """The connection URI."""
        return self.driver.uri

    @property
    def connected(self) -> bool:
        """Whether it is open and scanned."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Wait until it is open and scanned."""
        await self._ready.wait()

    async def tried(self) -> None:
        """Wait until it is open and scanned, or could not be opened for the first time."""
        await self._tried.wait()

    def record(self) -> HypervisorRecord:
        """Return what the node record says of it."""
        ability = self.ability or Ability(types=[], version="", verbs=[], events=[], arch="", cpus=0, memory_kib=0)
        return HypervisorRecord(
            uri=self.uri,
            types=ability.types,
            version=ability.version,
            verbs=ability.verbs,
            events=ability.events,
            connected=self.connected,
        )

    async def run(self, opened: Callable[[Hypervisor, str], Awaitable[None]]) -> None:
        """Keep it open for ever; `opened` scans it (given why it had to be opened), after which its events flow."""
        self._loop = asyncio.get_running_loop()
        reason, attempt = "start", 0
        while True:
            self._live, self._lost = False, anyio.Event()
            try:
                self.ability = await self.reads.submit(lambda: self.driver.open(self))
                await opened(self, reason)
            except DriverError as error:
                log.warning("hypervisor not reachable", uri=self.uri, reason=str(error))
                self._tried.set()
                await anyio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            self._release()
            await self._lost.wait()
            self._ready = anyio.Event()
            reason = "hypervisor connection lost"
            log.warning(reason, uri=self.uri)

    def sight(self, uuid: str) -> Sighting | None:
        """Look at a domain, and mark a new running instance. Blocks; raises `DriverError`."""
        return self.marked(self.driver.look(uuid))

    def marked(self, sighting: Sighting | None) -> Sighting | None:
        """Give a running instance that bears no incarnation a new one, if it can be. Blocks; raises `Lost`."""
        if sighting is None or not sighting.active or sighting.incarnation is not None:
            return sighting
        incarnation = self._incarnation()
        try:
            self.driver.mark(sighting.uuid, incarnation)
        except (Missing, Impossible, Rejected) as error:
            # It stopped meanwhile, hangs, or its hypervisor keeps no metadata: seen all the same, the next look tries again.
            log.info("running domain not marked", uuid=sighting.uuid, reason=str(error))
            return sighting
        return msgspec.structs.replace(sighting, incarnation=incarnation)

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
        if self._live:
            self._deliver(self, happening)
        else:
            self.held.append(happening)

    def _gone(self, reason: str) -> None:
        log.info("driver says", uri=self.uri, reason=reason)
        self._lost.set()

    def _release(self) -> None:
        held, self.held = self.held, []
        self._live = True
        self._ready.set()
        self._tried.set()
        for happening in held:
            self._deliver(self, happening)
