"""What a fleet goes through in a test of sameness: commands, faults, deaths and cuts, as a seed says."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Awaitable, Callable

import anyio

from orchestrator.bus.port import BusError
from orchestrator.protocol.error import WireError
from workers.testing import DOMAIN_XML, Fleet, VirtualLoop

STEPS = 30
DOMAINS = ("web1", "web2", "db1")


def told(seed: int) -> str:
    """Return the digest of all events, times and ids that a seed leads to."""
    return anyio.run(_told, seed, backend_options={"loop_factory": VirtualLoop})


async def _told(seed: int) -> str:
    chance = random.Random(seed)
    async with Fleet(nodes=3, coordinators=2, seed=seed) as fleet:
        for name in DOMAINS:
            await fleet.client.create_xml(name, DOMAIN_XML)
        async with anyio.create_task_group() as tasks:
            for _ in range(STEPS):
                tasks.start_soon(_step, fleet, chance)
                await anyio.sleep(chance.random() * 5.0)
        await anyio.sleep(60.0)
        stored = await fleet.stored()
    return hashlib.sha256(b"".join(message.subject.encode() + message.body for message in stored)).hexdigest()


async def _step(fleet: Fleet, chance: random.Random) -> None:
    node = fleet.nodes[chance.choice(list(fleet.nodes))]
    coordinator = fleet.coordinators[chance.choice(list(fleet.coordinators))]
    domain, verb = chance.choice(DOMAINS), chance.choice(["start", "destroy", "suspend", "resume", "reboot"])

    async def command() -> None:
        try:
            await fleet.client.call(domain, verb, timeout=20)
        except (WireError, BusError):
            return  # that it failed stands among the events

    async def die() -> None:
        if node.running:
            await node.crash()
            await anyio.sleep(chance.random() * 20.0)
            await node.start()

    async def change() -> None:
        if coordinator.running:
            await coordinator.crash()
            await anyio.sleep(1.0)
            await coordinator.start()

    async def hang() -> None:
        fault = node.hypervisor.hang(verb)
        await anyio.sleep(30.0)
        fault.release()

    async def cut() -> None:
        bus = node.bus
        fleet.broker.cut(bus)
        await anyio.sleep(3.0)
        fleet.broker.restore(bus)

    steps: list[Callable[[], Awaitable[None]]] = [command, command, command, command, die, change, hang, cut]
    await chance.choice(steps)()


if __name__ == "__main__":
    sys.stdout.write(told(int(sys.argv[1])))
