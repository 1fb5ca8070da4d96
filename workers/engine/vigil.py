"""Calls about one domain that do not return: told once when a domain is found stuck, and once when it is well again.

A call is late when it has not returned in its time, though a thread makes it. A domain is stuck for as long as a call about it
is late; while its hypervisor fails as a whole, that is told instead (`node.degraded`), and not each of its domains.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import anyio
import msgspec

from orchestrator.log import get_logger
from orchestrator.protocol.moment import timestamp
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.outbox import Draft, Outbox

SLOW_S = 5.0
"""Seconds after which a call that runs is told to be slow."""

STUCK_S = 30.0
"""Seconds after which a call is late though its command has more time. Not of long jobs."""

MAX_WAITING = 100
"""Commands that may wait for a domain that is stuck; what comes then is `busy`, so that it leaves room to the node's others."""

log = get_logger()

What = Literal["run", "look", "mark", "ask"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call about one domain. what: it does. verb: of the command or query, if it is one's. id: of the command.

    since: when it was made, Unix seconds. at: the same by the loop's clock.
    """

    hypervisor: Hypervisor
    uuid: str
    what: What
    since: float
    at: float
    verb: str = ""
    id: str | None = None

    def said(self) -> dict[str, Any]:
        """Return what the events about it say."""
        return {"call": self.what, "verb": self.verb, "hypervisor": self.hypervisor.uri, "since": timestamp(self.since)}


class Vigil:
    """Watches over the calls about single domains of one node."""

    def __init__(self, inventory: Inventory, outbox: Outbox, *, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self.clock = clock
        self._inventory = inventory
        self._outbox = outbox
        self._late: dict[str, dict[asyncio.Future[Any], tuple[Call, int]]] = {}
        self._told: dict[str, Call] = {}
        self._changed: deque[str] = deque()
        self._wake = anyio.Event()
        self._inspect: Callable[[str], None] = lambda _: None
        self._waiting: Callable[[str], int] = lambda _: 0

    def serve(self, inspect: Callable[[str], None], waiting: Callable[[str], int]) -> None:
        """Take what has a domain looked at in its turn, and what tells how many commands wait for one."""
        self._inspect, self._waiting = inspect, waiting

    def crowd(self, uuid: str) -> str:
        """Return why a domain takes no more commands for now, '' if it does."""
        call = self.stuck(uuid)
        if call is None or self._waiting(uuid) < MAX_WAITING:
            return ""
        since = timestamp(call.since)
        return f"domain {uuid} has not answered since {since}, and {MAX_WAITING} commands wait for it; try again later, with a new id"

    def stuck(self, uuid: str) -> Call | None:
        """Return the oldest late call about a domain, None if all return."""
        late = self._late.get(uuid)
        return next(iter(late.values()))[0] if late else None

    def out(self, hypervisor: Hypervisor, uuid: str, what: What) -> bool:
        """Tell whether a late call of this kind is out, on the present connection: another one would hang beside it."""
        return any(
            call.what == what and call.hypervisor is hypervisor and opening == hypervisor.openings
            for call, opening in self._late.get(uuid, {}).values()
        )

    def late(self, call: Call, future: asyncio.Future[Any]) -> None:
        """Take that a call is late; once is enough."""
        late = self._late.setdefault(call.uuid, {})
        if future in late:
            return
        late[future] = call, call.hypervisor.openings
        future.add_done_callback(lambda future: self._returned(call, future))
        self._change(call.uuid)

    def expect(self, call: Call, future: asyncio.Future[Any], within_s: float) -> None:
        """Take that a call is late if it has not returned in its time; nobody waits for it."""
        left_s = call.at + within_s - asyncio.get_running_loop().time()
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self.late, call, future)
        future.add_done_callback(lambda _: timer.cancel())
        future.add_done_callback(lambda _: self._inspect(call.uuid))

    async def slow(self, call: Call) -> None:
        """Tell that a call takes long. Raises `JournalFull`."""
        await self._outbox.tell([self._draft("health.slow-call", call, {**call.said(), "seconds": _seconds(call)})])

    async def run(self) -> None:
        """Tell who is stuck and who is well, for ever. Raises `JournalFull`."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._changed:
                await self._tell(self._changed.popleft())

    def _change(self, uuid: str) -> None:
        self._changed.append(uuid)
        self._wake.set()

    def _returned(self, call: Call, future: asyncio.Future[Any]) -> None:
        late = self._late[call.uuid]
        del late[future]
        if not late:
            del self._late[call.uuid]
            self._change(call.uuid)
        if call.what in ("look", "mark"):
            # What was told of the domain meanwhile is that it cannot be read.
            self._inspect(call.uuid)

    async def _tell(self, uuid: str) -> None:
        call, told = self.stuck(uuid), self._told.get(uuid)
        if call is not None and told is None and not call.hypervisor.ailment:
            self._told[uuid] = call
            log.warning("domain is stuck", uuid=uuid, **call.said())
            await self._outbox.tell([self._draft("health.stuck-domain", call, {"stuck": True, **call.said()})])
        elif call is None and told is not None:
            del self._told[uuid]
            seconds = _seconds(told)
            log.warning("domain is well again", uuid=uuid, seconds=seconds)
            await self._outbox.tell([self._draft("health.stuck-domain", told, {"stuck": False, **told.said(), "seconds": seconds})])

    def _draft(self, name: str, call: Call, data: dict[str, Any]) -> Draft:
        known = self._inventory.known.get(call.uuid)
        project = known.project if known is not None else self._inventory.default_project
        called = known.name if known is not None else None
        return Draft(name=name, project=project, domain=call.uuid, data=data, domainname=called, commandid=call.id)


def _seconds(call: Call) -> float:
    """Return for how long a call has run."""
    return round(asyncio.get_running_loop().time() - call.at, 3)
