"""Ten thousand repeats of ids, within and across restarts: one effect each, the first outcome each time.

A worker whose driver writes down each call is killed, has its journal taken away, and the broker is started again while
commands come again and again under the same ids, by all ways that there are.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator

import anyio
import pytest

from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import BusError, Message
from tests.e2e import audit
from tests.e2e.fleet import SUBJECTS, Fleet, everything, publish
from tests.e2e.places import PLACES, Place
from tests.hypervisors import unavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hypervisor,
    pytest.mark.slow,
    pytest.mark.skipif(unavailable() is not None, reason=f"real hypervisors: {unavailable()}"),
]

REPEATS = int(os.environ.get("REPEATS", "10000"))
SEED = int(os.environ.get("REPEATS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
NODE = "n1"
DOMAINS, COMMANDS = 20, 200
BLOWS = ("kill", "journal", "broker", "kill", "journal", "coordinator")


@pytest.fixture
def place() -> Iterator[Place]:
    """Run a test driver that outlives the worker, behind a libvirtd of its own."""
    with PLACES["libvirtd-test"]([NODE]) as place:
        yield place


class Sender:
    """Sends commands whose every run is an effect, each again and again, and hears what is answered."""

    def __init__(self, bus: NatsBus, domains: dict[str, str]) -> None:
        """`domains`: UUIDs by name."""
        self.answers: defaultdict[str, set[bytes]] = defaultdict(set)
        self.sent: Counter[str] = Counter()
        self._bus = bus
        self._domains = sorted(domains.items())
        self._chance = random.Random(SEED)

    def domain(self, number: int) -> tuple[str, str]:
        """Return name and UUID of the domain that a command is for."""
        return self._domains[number % DOMAINS]

    def heard(self, message: Message) -> None:
        """Take a result."""
        self.answers[message.subject.rpartition(".")[2]].add(message.body)

    async def send(self, count: int) -> None:
        """Send so many, mixed: into the node's log, through the coordinator's log, and as requests."""
        for _ in range(count):
            # New ids come all the time, so that each blow meets some that have not ended.
            number = self._chance.randrange(1 + min(COMMANDS - 1, self.sent.total() * COMMANDS // (REPEATS * 4 // 5)))
            identity, (name, uuid) = f"r{number}", self.domain(number)
            self.sent[identity] += 1
            body = json.dumps({"id": identity, "timeout_s": 600}).encode()
            way = self._chance.choices(["run", "cmd", "api"], [8, 1, 1])[0]
            if way == "run":
                await publish(self._bus, SUBJECTS.run(NODE, "default", uuid, "reset"), body)
            elif way == "cmd":
                await publish(self._bus, SUBJECTS.cmd("default", name, "reset"), body)
            else:
                await self._ask(SUBJECTS.api("default", uuid, "reset"), body, identity)

    async def _ask(self, subject: str, body: bytes, identity: str) -> None:
        try:
            answer = await self._bus.request(subject, body, timeout_s=2)
        except BusError:
            return  # nobody is there to answer just now
        if json.loads(answer.body).get("final", True):
            self.answers[identity].add(answer.body)


async def strike(fleet: Fleet, bus: NatsBus, blow: str) -> None:
    """Kill something; a worker without its journal has to wait until the lease of the one before has ended."""
    if blow != "journal":
        await fleet.kill_and_restart(NODE if blow == "kill" else blow)
        return
    worker = fleet.workers[NODE]
    os.kill(worker.pid, 9)
    await worker.ended()
    for file in (fleet.home / NODE).glob("journal.db*"):
        file.unlink()
    while (lease := await bus.last("KV_virt_leases", f"$KV.virt_leases.{NODE}")) is not None and lease.body:
        await anyio.sleep(0.5)
    await worker.start()


async def made(bus: NatsBus, place: Place) -> dict[str, str]:
    """Make the domains; return their UUIDs by name."""
    domains = {}
    for number in range(DOMAINS):
        name = f"vm{number}"
        body = json.dumps({"id": f"made-{number}", "args": {"xml": place.xml.format(name=name), "node": NODE}}).encode()
        answer = await bus.request(SUBJECTS.api("default", name, "create-xml"), body, timeout_s=30)
        domains[name] = json.loads(answer.body)["domain"]["uuid"]
    return domains


@pytest.mark.timeout(900)
async def test_ten_thousand_repeats_have_one_effect_each_and_the_first_outcome_each_time(fleet: Fleet, place: Place) -> None:
    """What was in the middle of its call when its worker was killed may be unknown; then it was called at most once."""
    async with fleet.client() as bus:
        sender = Sender(bus, await made(bus, place))
        async with bus.listen(SUBJECTS.results, sender.heard):
            for blow in BLOWS:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(sender.send, REPEATS // (len(BLOWS) + 1))
                    await anyio.sleep(random.Random(f"{SEED}{blow}").uniform(0.1, 1.0))  # at any moment: that is the point
                    await strike(fleet, bus, blow)
            await sender.send(REPEATS - sender.sent.total())
            last = await bus.request(SUBJECTS.api("default", "vm0", "suspend"), b'{"id": "last"}', timeout_s=60)
            assert json.loads(last.body)["ok"]
            events = await ended(bus, set(sender.sent))
    check(fleet, sender, events)
    print(f"\nseed {SEED}: {sender.sent.total()} messages under {len(sender.sent)} ids, {len(events)} events; {audit.failures(events)}")


async def ended(bus: NatsBus, ids: set[str]) -> list[audit.Told]:
    """Wait until each command has an end; return all events."""
    while True:
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
        if ids <= audit.ends(events).keys():
            return events
        await anyio.sleep(0.5)


def check(fleet: Fleet, sender: Sender, events: list[audit.Told]) -> None:
    """Compare ends, answers and calls."""
    ends = audit.ends(events)
    told = {identity: ends[identity][0]["data"] for identity in sender.sent}
    audit.check_one_end_each([event for event in events if event.get("commandid", "").startswith("r")], told)
    audit.check_sequences(events, NODE)
    for identity, result in told.items():
        assert all(json.loads(body) == result for body in sender.answers[identity]), f"{identity} (seed {SEED})"
    assert sum(map(bool, sender.answers.values())) > COMMANDS / 2, "answers were heard"
    calls = fleet.calls()
    for number in range(DOMAINS):
        _, uuid = sender.domain(number)
        mine = [told[f"r{each}"] for each in range(number, COMMANDS, DOMAINS) if f"r{each}" in told]
        done = sum(result["ok"] for result in mine)
        unknown = sum(result.get("error", {}).get("outcome") == "unknown" for result in mine)
        assert done <= calls["reset", uuid] <= done + unknown, f"{uuid} (seed {SEED})"
    assert sum(result["ok"] for result in told.values()) > COMMANDS / 2, f"hardly anything was done: {audit.failures(events)}"
    assert "Traceback" not in fleet.logs()
