"""Kill -9 of worker, coordinator and broker in the middle of many commands and their events: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator

import anyio
import pytest

from orchestrator.bus.nats import NatsBus
from orchestrator.protocol import token
from tests.e2e import audit
from tests.e2e.fleet import SUBJECTS, Fleet, everything, publish
from tests.e2e.places import PLACES, TEST, Place
from tests.hypervisors import unavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hypervisor,
    pytest.mark.slow,
    pytest.mark.skipif(unavailable() is not None, reason=f"real hypervisors: {unavailable()}"),
]

COMMANDS = int(os.environ.get("KILL_COMMANDS", "1000"))
DOMAINS = 8
SEED = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

@pytest.fixture(params=["embed", "libvirtd-test"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Real hypervisors that outlive a worker: embedded QEMU, and the test driver behind a libvirtd of its own."""
    with PLACES[request.param](["n1", "n2"]) as place:
        yield place


def script(chance: random.Random, xml: str) -> dict[str, list[tuple[str, str, bytes]]]:
    """Return each domain's commands: (id, verb, body). Creation first, tried again since a kill may foil it; then a mix."""
    sent: dict[str, list[tuple[str, str, bytes]]] = {}
    for number in range(DOMAINS):
        name = f"vm{number}"
        args = {"xml": xml.format(name=name), "node": f"n{number % 2 + 1}"}
        made = [(f"{name}-{step}", "create-xml", json.dumps({"id": f"{name}-{step}", "args": args}).encode()) for step in range(3)]
        for step in range(3, COMMANDS // DOMAINS):
            verb = chance.choice(["suspend", "resume", "suspend", "resume", "set-autostart", "destroy", "start"])
            arguments = {"enabled": chance.random() < 0.5} if verb == "set-autostart" else {}
            identity = f"{name}-{step}"
            made.append((identity, verb, json.dumps({"id": identity, "args": arguments, "timeout_s": 600}).encode()))
        sent[name] = made
    return sent


async def send(bus: NatsBus, sent: dict[str, list[tuple[str, str, bytes]]], chance: random.Random) -> None:
    """Publish all commands over a quarter of a minute, domains mixed, each domain's in order; some twice."""
    left = {name: list(commands) for name, commands in sent.items()}
    while left:
        name = chance.choice(sorted(left))
        _, verb, body = left[name].pop(0)
        for _ in range(2 if chance.random() < 0.05 else 1):
            await publish(bus, SUBJECTS.cmd("default", name, verb), body)
        if not left[name]:
            del left[name]
        await anyio.sleep(chance.uniform(0, 30 / COMMANDS))


async def all_ended(bus: NatsBus, ids: set[str], within_s: float) -> None:
    """Wait until each command has a terminal event in the log."""
    missing = set(ids)
    with anyio.move_on_after(within_s):
        while missing:
            events = audit.parsed(await everything(bus, SUBJECTS.log_evt, "virt.v1.evt.*.*.*.command.*"))
            missing = ids - audit.ends(events).keys()
            if missing:
                await anyio.sleep(0.5)
    assert set() == missing, f"no end for {sorted(missing)[:10]} (seed {SEED})"


@pytest.mark.timeout(900)
async def test_kill_9_of_any_part_loses_nothing_and_doubles_nothing(fleet: Fleet, place: Place) -> None:
    """Workers, coordinator and broker are killed while commands run; then the logs, libvirt and the call counts are compared."""
    chance = random.Random(SEED)
    sent = script(chance, place.xml)
    ids = {identity for commands in sent.values() for identity, _, _ in commands}
    async with fleet.client() as bus:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, bus, sent, random.Random(SEED))
            for part in chance.sample(["n1", "n2", "coordinator", "broker"] * 2, 8):
                await anyio.sleep(chance.uniform(0.1, 1.0))  # at any moment: that is the point
                await fleet.kill_and_restart(part)
        await all_ended(bus, ids, 300)
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
        kept = await everything(bus, "KV_virt_domains", "$KV.virt_domains.>")
    audit.check_one_end_each(events, ids)
    for node in place.uris:
        audit.check_sequences(events, node)
    audit.check_order(events, {name: [identity for identity, _, _ in commands] for name, commands in sent.items()})
    audit.check_effects(events, fleet.calls())
    await fleet.stop_workers()
    for node in place.uris:
        told = {
            state["name"]: state["state"]
            for state in (json.loads(message.body) for message in kept if message.body)
            if state["node"] == node
        }
        assert place.ask(node, "list") == told
    assert "Traceback" not in fleet.logs()
    why = audit.failures(events), [told[0]["data"] for told in audit.ends(events).values()][:3]
    assert sum(event["type"].endswith("command.succeeded") for event in events) > len(ids) / 4, f"hardly anything was done: {why}"
    print(f"\nseed {SEED}: {len(ids)} commands, {len(events)} events, not succeeded: {dict(audit.failures(events))}")


def test_ids_of_the_script_are_tokens() -> None:
    """So that a failing audit speaks of the system and not of the script."""
    for commands in script(random.Random(1), TEST).values():
        for identity, _, _ in commands:
            assert token.command_id(identity) == identity
