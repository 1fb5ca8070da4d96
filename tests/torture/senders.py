"""Those who send a plan's commands, in its order and as near to its times as the installation lets them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import anyio

from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import BusError
from tests.e2e.fleet import SUBJECTS, publish
from tests.torture.plan import PROJECT, Domain, Plan, Send

_ASK_S = 10.0
"""Seconds for which an answer is waited for before the same is asked again."""


class Senders:
    """Sends `plan` through `bus`. answers: by `api`, final ones only, in the order of arrival."""

    def __init__(self, bus: NatsBus, plan: Plan) -> None:
        self.answers: list[dict[str, Any]] = []
        self._bus = bus
        self._plan = plan
        self._began = 0.0

    async def run(self) -> None:
        """Send everything; return when all of it is stored or answered."""
        self._began = anyio.current_time()
        sends = self._plan.sends
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask_all, [send for send in sends if send.way == "api"])
            for way in ("cmd", "run"):
                tasks.start_soon(self._store_all, [send for send in sends if send.way == way])

    async def _due(self, send: Send) -> None:
        await anyio.sleep_until(self._began + send.at)

    async def _store_all(self, sends: Iterable[Send]) -> None:
        for send in sends:
            await self._due(send)
            await publish(self._bus, self._subject(send), send.body)

    async def _ask_all(self, sends: Iterable[Send]) -> None:
        async with anyio.create_task_group() as tasks:
            for send in sends:
                await self._due(send)
                tasks.start_soon(self._ask, send)

    async def _ask(self, send: Send) -> None:
        """Ask under the same id until somebody says how it ended."""
        while True:
            try:
                answer = json.loads((await self._bus.request(self._subject(send), send.body, timeout_s=_ASK_S)).body)
            except BusError:
                await anyio.sleep(0.2)
                continue
            if answer.get("final", True):
                self.answers.append(answer)
                return
            await anyio.sleep(0.2)

    def _subject(self, send: Send) -> str:
        domain: Domain = self._plan.domains[send.domain]
        if send.way == "run":
            return SUBJECTS.run(domain.node, PROJECT, domain.uuid, send.verb)
        return (SUBJECTS.api if send.way == "api" else SUBJECTS.cmd)(PROJECT, send.subject, send.verb)
