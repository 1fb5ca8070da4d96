"""The law of ids at one node, at length: one effect each, the first outcome each time, whatever dies in between.

Ten thousand of them, with real processes: `tests/e2e/test_repeats.py`.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator

import anyio
import pytest

from orchestrator.bus.port import Message
from orchestrator.store.kv import KeyValue
from tests.e2e import audit
from tests.unit.worker.world import NODE, SUBJECTS, World, world
from workers.journal.memory import MemoryDisk

pytestmark = pytest.mark.anyio

DOMAINS, COMMANDS, MESSAGES, SPELLS = 6, 60, 500, 10
SEEDS = (1, 2)


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield made


def uuid_of(number: int) -> str:
    """Return one of the domains' UUIDs."""
    return f"6f1c0000-0000-4000-8000-{number % DOMAINS:012d}"


class Story:
    """Commands of which each has an effect each time that it is run, sent again and again."""

    def __init__(self, node: World, seed: int) -> None:
        self.node = node
        self.chance = random.Random(seed)
        self.sent: Counter[int] = Counter()
        self.answers: dict[str, set[bytes]] = {}

    def heard(self, message: Message) -> None:
        """Take a result."""
        self.answers.setdefault(message.subject.rpartition(".")[2], set()).add(message.body)

    async def send(self, count: int) -> None:
        """Send so many, new ones and old."""
        for _ in range(count):
            number = self.chance.randrange(1 + min(COMMANDS - 1, self.sent.total() * COMMANDS // (MESSAGES * 4 // 5)))
            self.sent[number] += 1
            await self.node.send("reset", uuid_of(number), body={"id": f"r{number}"})

    async def disturb(self) -> None:
        """Let the next worker find something changed: nothing, its journal gone, the broker started again."""
        what = self.chance.choice(["nothing", "journal", "broker"])
        if what == "journal":
            self.node.disk = MemoryDisk()
            await KeyValue(self.node.client, SUBJECTS.bucket("leases")).remove(NODE)
        elif what == "broker":
            self.node.broker.stop()
            self.node.broker.start()
            await self.node.client.link.up()


@pytest.mark.parametrize("seed", SEEDS)
async def test_repeats_of_ids_have_one_effect_each_and_the_first_outcome_each_time(node: World, seed: int) -> None:
    """The worker is killed again and again, often with an empty journal after that; some calls are cut off in the middle."""
    story = Story(node, seed)
    async with node.client.listen(SUBJECTS.results, story.heard):
        async with node.worker():
            for number in range(DOMAINS):
                await node.create(uuid_of(number), f"web{number}")
        for _ in range(SPELLS):
            fault = node.driver.faults.hang("reset", after=story.chance.random() < 0.5)
            async with node.worker():
                await story.send(MESSAGES // SPELLS)
                await anyio.sleep(story.chance.random() * 0.05)  # killed at any moment: that is the point
            fault.release()
            await story.disturb()
        node.driver.faults.take("reset")
        async with node.worker():
            for number in story.sent:
                await node.ended(f"r{number}")
            await story.send(COMMANDS)
            events = await node.until(lambda events: {f"r{number}" for number in story.sent} <= audit.ends(events).keys())
            await anyio.wait_all_tasks_blocked()
    ends = audit.ends(events)
    told = {number: ends[f"r{number}"][0]["data"] for number in story.sent}
    audit.check_one_end_each([event for event in events if event.get("commandid", "").startswith("r")], [f"r{number}" for number in told])
    audit.check_sequences(events, NODE)
    done = Counter(number % DOMAINS for number, result in told.items() if result["ok"])
    unknown = Counter(number % DOMAINS for number, result in told.items() if result.get("error", {}).get("outcome") == "unknown")
    for number in range(DOMAINS):
        calls = node.driver.calls.count(("reset", uuid_of(number)))
        assert done[number] <= calls <= done[number] + unknown[number], f"seed {seed}"
    for number, result in told.items():
        assert [result] == [json.loads(body) for body in story.answers[f"r{number}"]], f"seed {seed}"
