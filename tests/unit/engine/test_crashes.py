"""The coordinator killed, or cut off, at each of its exchanges with the broker: no command lost, none twice, none out of order."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.bus.port import NoResponder, Uncertain
from orchestrator.engine.pace import Pace
from tests.unit.engine.mortal import WAYS, MortalBus, Way
from tests.unit.engine.world import Running, World, forget_leader, uuid_of, world, xml

pytestmark = pytest.mark.anyio

CALM = Pace(look=0.1, retry=0.01, ask=1.0, tick=0.1, renew=5.0)
TWO = uuid_of(2)

COMMANDS = [
    ("web1", "define-xml", {"id": "k1", "args": {"xml": xml()}}),
    ("web1", "start", {"id": "k2"}),
    (TWO, "create-xml", {"args": {"xml": xml("web2")}}),
    ("web1", "destroy", None),
    ("web2", "suspend", {"id": "k5"}),
    ("nobody", "start", {"id": "k6"}),
    ("web1", "start", {"unknown": 1}),
    ("web1", "undefine", {"id": "k8"}),
]
"""Commands in the order of the log; the sixth and the seventh are ended by the coordinator."""


class Story:
    """The commands above, given to a coordinator that fails at exchange `at`."""

    def __init__(self, here: World, *, at: int, way: Way) -> None:
        self.here = here
        self.bus = MortalBus(here.broker, at=at, way=way)
        self.way = way
        self.ids: list[str] = []

    async def tell(self) -> None:
        """Let it all happen, up to the end of every command."""
        await self.here.worker("n1")
        await self.here.worker("n2")
        for domain, verb, body in COMMANDS:
            sequence = await self.here.cmd("p", domain, verb, body)
            given = body.get("id") if isinstance(body, dict) else None
            self.ids.append(str(given or f"m-cmd-{sequence}"))
        running = Running(self.here, "c1", self.bus, CALM)
        self.bus.die = running.scope.cancel
        await running.start()
        await self.here.until(lambda: self.ended() if not running.stopped.is_set() else True, seconds=10)
        if running.stopped.is_set():
            await forget_leader(self.here)
            await self.here.coordinator("c2", pace=CALM)
            await self.here.until(self.ended, seconds=10)

    async def ended(self) -> bool:
        """Tell whether each command has an end."""
        return set(self.ids) <= {id for _, id in await self.here.terminals()}

    def ran(self, *numbers: int) -> list[list[str]]:
        """Return, for each node that ran any, which of the commands with these numbers it ran, in order."""
        wanted = [self.ids[number - 1] for number in numbers]
        each = [[id for _, id, _ in worker.ran if id in wanted] for worker in self.here.workers.values()]
        return [ran for ran in each if ran]

    def nodes(self) -> dict[str, set[str]]:
        """Return to which nodes copies of each command went."""
        went: dict[str, set[str]] = {}
        for worker in self.here.workers.values():
            for message in worker.received:
                went.setdefault(message.headers["Virt-Id"], set()).add(worker.name)
        return went


@pytest.mark.parametrize("way", WAYS)
async def test_no_command_is_lost_doubled_or_overtaken_wherever_the_coordinator_fails(way: Way) -> None:
    """Each exchange with the broker is in turn the one at which it happens; who was killed is succeeded by another."""
    at = 0
    happened = True
    while happened:
        at += 1
        async with world() as here:
            story = Story(here, at=at, way=way)
            await story.tell()
            happened = story.bus.exchanges >= at
            failed = {("p", story.ids[number]): ["command.failed"] for number in (5, 6)}
            succeeded = {("p", id): ["command.succeeded"] for id in story.ids if ("p", id) not in failed}
            assert succeeded | failed == await here.terminals(), f"one end each ({way} {at})"
            assert [[story.ids[0], story.ids[1], story.ids[3], story.ids[7]]] == story.ran(1, 2, 4, 8), f"{way} {at}"
            assert [[story.ids[2], story.ids[4]]] == story.ran(3, 5), f"{way} {at}"
            assert {1} == {len(nodes) for nodes in story.nodes().values()}, f"all copies go to one node ({way} {at})"
    assert at > 40, "there are many exchanges at which it was tried"




REQUESTS = [
    ("web1", "define-xml", {"id": "k1", "args": {"xml": xml()}}),
    ("web1", "start", {"id": "k2"}),
    ("nobody", "start", {"id": "k3"}),
    ("web1", "undefine", {"id": "k4"}),
    ("web1", "define-xml", {"id": "k5", "args": {"xml": xml()}}),
]
"""Requests of one client, each sent when the one before was answered."""


async def _asked(here: World, domain: str, verb: str, body: Any) -> Any:
    """Ask until there is an answer, each time under the same id, as a client does whose coordinator may have died."""
    with anyio.fail_after(10):
        while True:
            try:
                return await here.api("p", domain, verb, body, timeout_s=0.1)
            except (NoResponder, Uncertain):
                await anyio.sleep(0.01)


async def _succeeded(here: World, running: Running) -> None:
    """Let another coordinator take over when this one dies."""
    await running.stopped.wait()
    await forget_leader(here)
    await here.coordinator("c2", pace=CALM)


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_sent_again_has_one_effect_and_one_end_wherever_the_coordinator_fails(way: Way) -> None:
    """Each exchange with the broker is in turn the one at which it happens; the answer is that of the one end."""
    at = 0
    happened = True
    while happened:
        at += 1
        async with world() as here:
            workers = [await here.worker("n1"), await here.worker("n2")]
            bus = MortalBus(here.broker, at=at, way=way)
            running = Running(here, "c1", bus, CALM)
            bus.die = running.scope.cancel
            here.tasks.start_soon(_succeeded, here, running)
            await running.start()
            answers = [await _asked(here, *request) for request in REQUESTS]
            happened = bus.exchanges >= at
            assert [True, True, False, True, True] == [answer["ok"] for answer in answers], f"{way} {at}: {answers}"
            ends = {("p", f"k{number}"): ["command.succeeded"] for number in (1, 2, 4, 5)} | {("p", "k3"): ["command.failed"]}
            assert ends == await here.terminals(), f"{way} {at}"
            assert ["k1", "k2", "k4", "k5"] == sorted(id for worker in workers for _, id, _ in worker.ran), f"{way} {at}"
    assert at > 40, "there are many exchanges at which it was tried"
