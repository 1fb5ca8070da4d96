"""One coordinator: every part of it, wired. Several may run side by side: all answer `api`, one of them leads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

from orchestrator.bus.port import Bus, Clock
from orchestrator.engine.announcer import Announcer
from orchestrator.engine.api import Api
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.canceller import Canceller
from orchestrator.engine.carrier import Carrier
from orchestrator.engine.creation import Creation
from orchestrator.engine.custodian import Custodian
from orchestrator.engine.ending import Ender
from orchestrator.engine.flight import Flights
from orchestrator.engine.history import History
from orchestrator.engine.lanes import Lanes
from orchestrator.engine.leadership import Leadership
from orchestrator.engine.ledgers import Ledgers
from orchestrator.engine.locator import Locator
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.outcomes import Outcomes
from orchestrator.engine.owners import Owners
from orchestrator.engine.pace import Pace
from orchestrator.engine.peers import Peers
from orchestrator.engine.questions import Questions
from orchestrator.engine.recent import Recent
from orchestrator.engine.router import Router
from orchestrator.engine.search import Search
from orchestrator.engine.term import Term
from orchestrator.engine.verdicts import Verdicts
from orchestrator.engine.watchman import Watchman
from orchestrator.engine.wayfinder import Wayfinder
from orchestrator.protocol import token
from orchestrator.protocol.subject import Subjects
from orchestrator.store.kv import KeyValue
from orchestrator.store.port import Store

Randomness = Callable[[int], bytes]
"""Gives so many random bytes."""


class Coordinator:
    """A coordinator over an entered bus, whose logs and buckets are provisioned.

    name: a token, unique among coordinators. version: of the software, told to who asks the micro service.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        subjects: Subjects,
        name: str,
        version: str,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
        randomness: Randomness = os.urandom,
        pace: Pace | None = None,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._name = token.node(name)
        self._version = version
        self._clock = clock
        self._monotonic = monotonic
        self._randomness = randomness
        self._pace = pace or Pace()
        self._wire()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Coordinate for ever; started once requests are answered. Waits as long as the broker is away."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._mirror.run)
            await self._mirror.filled()
            await tasks.start(self._outcomes.run)
            await tasks.start(self._peers.run)
            await tasks.start(self._verdicts.run)
            serving = self._bus.serve(
                self._subjects.service("api"),
                self._subjects.apis,
                self._api.answer,
                version=self._version,
                metadata={"coordinator": self._name},
            )
            async with serving:
                tasks.start_soon(self._leadership.run, self._term.run)
                task_status.started()
                await anyio.sleep_forever()

    def _wire(self) -> None:
        bus, subjects, pace = self._bus, self._subjects, self._pace
        self._announcer = Announcer(bus, subjects, self._name, clock=self._now, randomness=self._randomness)
        # Two coordinators under one name would take each other's readers.
        reader = f"{self._name}-{self._announcer.epoch[-8:]}"
        self._mirror = Mirror(bus, self._bucket)
        self._lanes = Lanes()
        self._recent = Recent()
        self._flights = Flights()
        self._owners = Owners(self._bucket("owners"))
        self._history = History(bus, subjects, reader, self._now)
        self._verdicts = Verdicts(bus, subjects, self._history, self._recent, name=f"{reader}-verdicts", pace=pace)
        self._backlog = Backlog(bus, subjects, self._mirror, reader, self._monotonic)
        self._outcomes = Outcomes(
            bus, subjects, self._history, self._recent, self._backlog, look_s=pace.look, monotonic=self._monotonic
        )
        self._locator = Locator(
            bus, subjects, self._mirror, self._owners, self._history, self._outcomes, self._recent, pause_s=pace.look
        )
        self._carrier = Carrier(
            bus, subjects, self._mirror, self._outcomes, self._history, self._backlog, pace=pace, now=self._now, monotonic=self._monotonic
        )
        self._wire_api(reader)
        self._wire_leading(reader)

    def _wire_api(self, reader: str) -> None:
        bus, subjects, pace = self._bus, self._subjects, self._pace
        ledgers = Ledgers(bus, subjects, self._mirror, pace)
        creation = Creation(self._mirror, self._owners, self._locator, self._history, self._now)
        self._peers = Peers(bus, subjects, self._flights, name=reader, silence_s=pace.look)
        search = Search(bus, subjects, ledgers, self._history, f"{reader}-search")
        canceller = Canceller(
            self._mirror, self._flights, self._recent, self._locator, self._history, search, self._peers, pause_s=pace.look
        )
        wayfinder = Wayfinder(self._mirror, self._locator, creation, canceller, self._history, ledgers, search, self._backlog)
        self._router = Router(
            self._mirror,
            self._lanes,
            self._recent,
            wayfinder,
            self._carrier,
            Ender(bus, subjects, self._announcer, self._recent, self._now),
            self._owners,
            self._flights,
            link=bus.link,
            pace=pace,
            now=self._now,
            fresh_id=self._fresh_id,
        )
        questions = Questions(
            bus,
            subjects,
            self._mirror,
            self._locator,
            self._history,
            ledgers,
            self._recent,
            pace=pace,
            monotonic=self._monotonic,
        )
        self._api = Api(subjects, self._router, questions, now=self._now, fresh_id=self._fresh_id)

    def _wire_leading(self, reader: str) -> None:
        bus, subjects, pace = self._bus, self._subjects, self._pace
        custodian = Custodian(
            bus,
            subjects,
            self._mirror,
            self._lanes,
            self._owners,
            self._locator,
            self._history,
            self._announcer,
            pace=pace,
            monotonic=self._monotonic,
        )
        watchman = Watchman(
            bus, subjects, self._mirror, self._announcer, name=reader, pace=pace, monotonic=self._monotonic
        )
        self._term = Term(
            bus,
            subjects,
            self._bucket("cursors"),
            self._mirror,
            self._router,
            self._locator,
            self._carrier,
            self._announcer,
            beside=(custodian.run, watchman.run),
            name=reader,
            pace=pace,
        )
        self._leadership = Leadership(
            bus, self._bucket("cursors"), self._bucket("cursors"), self._name, pace=pace, clock=self._now, monotonic=self._monotonic
        )

    def _bucket(self, name: str) -> Store:
        return KeyValue(self._bus, self._subjects.bucket(name))

    def _now(self) -> float:
        """Return broker time, Unix seconds."""
        return self._clock() + self._bus.offset_s

    def _fresh_id(self) -> str:
        return f"m-api-{token.ulid(int(self._clock() * 1000), self._randomness(10))}"
