"""One frozen QEMU among many holds up nobody, is told, and comes back; the laws of what is asked of it meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from orchestrator.event import CommandSettled, StuckDomain
from orchestrator.protocol.error import DeadlineExceeded
from tests.e2e.frozen import NODE, Machines, machines
from tests.hypervisors import unavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hypervisor,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(unavailable() is not None, reason=f"real hypervisors: {unavailable()}"),
]

MACHINES = 20
FROZEN = "vm7"


@pytest.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[Machines]:
    """Many machines on one node."""
    async with machines(tmp_path, MACHINES) as made:
        yield made


async def told(crowd: Machines, *, stuck: bool) -> StuckDomain:
    """Wait until it is told that a domain is stuck, or well again."""
    with anyio.fail_after(60):
        async for event in crowd.client.events(every=True, kinds=("health.stuck-domain",), since=0.0):
            match event:
                case StuckDomain(stuck=said) if said is stuck:
                    return event
    raise AssertionError  # a feed has no end


async def settled(crowd: Machines, id: str) -> CommandSettled:
    """Wait until it is told what became of a command."""
    with anyio.fail_after(60):
        async for event in crowd.client.events(every=True, kinds=("command.settled",), since=0.0):
            match event:
                case CommandSettled() if event.commandid == id:
                    return event
    raise AssertionError  # a feed has no end


async def others_obey(crowd: Machines) -> None:
    """Suspend and resume all that are not frozen."""
    for verb in ("suspend", "resume"):
        async with anyio.create_task_group() as tasks:
            for name in crowd.names:
                if name != FROZEN:
                    tasks.start_soon(_changes, crowd, name, verb)


async def _changes(crowd: Machines, name: str, verb: str) -> None:
    assert (await crowd.client.call(name, verb)).changed, f"{verb} of {name} changed nothing"


async def test_one_frozen_machine_among_twenty_holds_up_nobody(crowd: Machines) -> None:
    """Its command meets its deadline, what is behind expires, queries have an end, the node stays; thawed it obeys, in order."""
    client = crowd.client
    crowd.freeze(FROZEN)
    with pytest.raises(DeadlineExceeded) as overrun:
        await client.suspend(FROZEN, id="frozen", timeout=3)
    assert overrun.value.outcome == "unknown"
    found = await told(crowd, stuck=True)
    assert ("run", "suspend", "frozen", FROZEN) == (found.call, found.verb, found.commandid, found.domainname)

    with pytest.raises(DeadlineExceeded) as behind:
        await client.resume(FROZEN, timeout=2)
    assert behind.value.outcome == "none", "it never began"
    waiting = await client.post(FROZEN, "resume", id="waiting", timeout=600)
    await others_obey(crowd)
    assert (await client.get(FROZEN)).name == FROZEN
    assert FROZEN in await client.xml(FROZEN)
    for _ in range(2):
        with anyio.fail_after(10), pytest.raises(DeadlineExceeded):
            await client.stats(FROZEN)
    assert await client.stats("vm1")
    await anyio.sleep(16)  # longer than a lease lasts without renewal
    (node,) = await client.nodes()
    assert [True] == [one.connected for one in node.hypervisors]
    await others_obey(crowd)

    crowd.thaw(FROZEN)
    assert (await settled(crowd, "frozen")).outcome == "applied"
    assert (await told(crowd, stuck=False)).since == found.since
    assert (await client.wait(FROZEN, state="running", timeout=30)).state == "running"
    assert (await client.command(waiting, domain=FROZEN))["result"]["ok"]
    calls = crowd.fleet.calls()
    uuid = (await client.get(FROZEN)).uuid
    assert (1, 1) == (calls["suspend", uuid], calls["resume", uuid])
    assert "Traceback" not in crowd.fleet.logs()


async def test_a_frozen_machine_that_is_killed_is_settled_and_told_to_have_stopped(crowd: Machines) -> None:
    """And a worker that starts meanwhile, and finds it frozen, serves all others."""
    client = crowd.client
    crowd.freeze(FROZEN)
    with pytest.raises(DeadlineExceeded):
        await client.suspend(FROZEN, id="frozen", timeout=2)
    crowd.kill(FROZEN)
    assert (await settled(crowd, "frozen")).outcome == "none"
    assert (await client.wait(FROZEN, state="shutoff", timeout=30)).state == "shutoff"
    assert (await client.start(FROZEN)).changed

    crowd.freeze(FROZEN)
    await crowd.fleet.kill_and_restart(NODE)
    await others_obey(crowd)
    crowd.thaw(FROZEN)
    assert (await client.suspend(FROZEN)).changed
