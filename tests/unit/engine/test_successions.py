"""Leaders that die one after another while names change their meaning: what one has routed, none of the next routes otherwise."""

from __future__ import annotations

import random

import pytest

from orchestrator.engine.pace import Pace
from tests.unit.engine.mortal import MortalBus
from tests.unit.engine.world import SUBJECTS, Running, World, forget_leader, world, xml

pytestmark = pytest.mark.anyio

BRISK = Pace(look=0.05, retry=0.01, ask=0.5, tick=0.02, renew=5.0)
LIVES = 3
NAMES = ("red", "green", "blue")


async def _leave_commands(here: World) -> list[tuple[str, str]]:
    """Make, use and remove domains under each name, several times over; return name and id of each command, in order."""
    left: list[tuple[str, str]] = []
    for _ in range(LIVES):
        for verb in ("define-xml", "start", "suspend", "destroy", "undefine"):
            for name in NAMES:
                body = {"args": {"xml": xml()}} if verb == "define-xml" else None
                left.append((name, f"m-cmd-{await here.cmd('p', name, verb, body)}"))
    return left


async def _lead(here: World, number: int, chance: random.Random) -> bool:
    """Let a coordinator lead until it dies; tell whether it lived on until all commands had ended."""
    bus = MortalBus(here.broker, at=chance.randint(20, 150), way=chance.choice(("killed before", "killed after")))
    running = Running(here, f"c{number}", bus, BRISK)
    bus.die = running.scope.cancel
    await running.start()
    await here.until(lambda: running.stopped.is_set() or _all_ended(here), seconds=10)
    if running.stopped.is_set():
        await forget_leader(here)
    return not running.stopped.is_set()


async def _all_ended(here: World) -> bool:
    return len(await here.terminals()) >= 5 * LIVES * len(NAMES)


@pytest.mark.parametrize("seed", range(4))
async def test_what_a_leader_routed_none_of_its_successors_routes_otherwise(seed: int) -> None:
    """Each command has one end and takes effect once, in the order of the log, though every name comes to mean other domains."""
    chance = random.Random(seed)
    async with world() as here:
        workers = [await here.worker("n1"), await here.worker("n2")]
        left = await _leave_commands(here)
        number = 1
        while not await _lead(here, number, chance):
            number += 1

        assert {("p", id): ["command.succeeded"] for _, id in left} == await here.terminals()
        for name in NAMES:
            expected = [id for each, id in left if each == name]
            received = [message for worker in workers for message in worker.received]
            went = {SUBJECTS.parse_routed(message.subject).node for message in received if message.headers["Virt-Id"] in expected}
            for worker in workers:
                ran = [id for _, id, _ in worker.ran if id in expected]
                assert ran == sorted(ran, key=expected.index)
            assert went <= {"n1", "n2"}
        assert len(left) == sum(len(worker.ran) for worker in workers)
        assert number > 1, "some of them died"
