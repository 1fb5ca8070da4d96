"""After the log: the state key of each domain that an event touched, then the result that was waited for.

The order of effects is events, state, result (PROTOCOL §5), so who has the answer can read the state. Under load state
keys are coalesced per domain, results never. After a reconnect everything is said again: the broker may have lost it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import anyio
import structlog

from orchestrator.bus.port import Bus, BusError
from orchestrator.protocol import codec
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.subject import domain_key
from orchestrator.store.port import Store
from workers.engine.outbox import Waiting

MARKER_S = 60
"""Seconds that the marker of a removed state key stands."""

AT_ONCE = 256
RETRY_S = 0.2

log = structlog.get_logger()

Answer = tuple[str, bytes, float]
"""Subject, body, deadline in broker time."""


class Projection:
    """Writes the state keys and sends the results of one worker."""

    def __init__(
        self, bus: Bus, domains: Store, node: str, known: Mapping[str, Observed], answers: Sequence[Answer], *, clock: Callable[[], float]
    ) -> None:
        """`known` is the live map of observed domains by UUID; `answers` are results of before this start, to be sent again."""
        self._bus = bus
        self._domains = domains
        self._node = node
        self._known = known
        self._clock = clock
        self._states: dict[str, Observed | None] = {}
        self._results: list[Answer] = []
        self._recent: deque[Answer] = deque(answers, maxlen=10_000)
        self._wake = anyio.Event()

    def stored(self, events: Sequence[Waiting]) -> None:
        """Take events that are in the log now."""
        for waiting in events:
            if waiting.effect.state is not None:
                project, uuid, observed = waiting.effect.state
                self._states[domain_key(self._node, project, uuid)] = observed
            if waiting.effect.result is not None:
                self._results.append(waiting.effect.result)
        self._wake.set()

    def answer(self, subject: str, body: bytes, deadline: float) -> None:
        """Send a result whose event is stored already: a repeat asked for it."""
        self._results.append((subject, body, deadline))
        self._wake.set()

    async def run(self) -> None:
        """Write and send for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            await self._work()

    async def _watch(self) -> None:
        session = 0
        while True:
            session = await self._bus.link.up(after=session)
            self._wake.set()

    async def _work(self) -> None:
        session = 0
        while True:
            if self._bus.link.session != session:
                session = await self._bus.link.up()
                self._all()
                self._again()
            if not self._states and not self._results:
                self._wake = anyio.Event()
                await self._wake.wait()
                continue
            try:
                await self._round()
            except BusError as error:
                log.info("state keys interrupted", reason=str(error) or type(error).__name__)
                await anyio.sleep(RETRY_S)
                await self._bus.link.up()

    def _all(self) -> None:
        for observed in self._known.values():
            self._states.setdefault(domain_key(self._node, observed.project, observed.uuid), observed)

    def _again(self) -> None:
        now = self._clock()
        self._results += [answer for answer in self._recent if answer[2] > now]

    async def _round(self) -> None:
        """Write what has gathered; what fails is kept unless a newer state came meanwhile."""
        states, results = self._states, self._results
        self._states, self._results = {}, []
        try:
            while states:
                portion = [(key, states[key]) for key in list(states)[:AT_ONCE]]
                await self._write_all(portion)
                for key, _ in portion:
                    del states[key]
            while results:
                subject, body, _ = results[0]
                await self._bus.publish(subject, body)
                self._recent.append(results.pop(0))
        finally:
            self._states = states | self._states
            self._results[:0] = results

    async def _write_all(self, portion: Sequence[tuple[str, Observed | None]]) -> None:
        if len(portion) == 1:
            await self._write(*portion[0])
            return
        # All are waited for, also when one fails, so that none of them outlives this round.
        for outcome in await asyncio.gather(*(self._write(key, observed) for key, observed in portion), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _write(self, key: str, observed: Observed | None) -> None:
        if observed is None:
            await self._domains.remove(key, marker_s=MARKER_S)
        else:
            await self._domains.put(key, codec.encode(observed))
