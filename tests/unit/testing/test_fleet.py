"""A fleet in memory does what a real one does, and the same again for the same seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from orchestrator.protocol.command import Condition
from orchestrator.protocol.error import Conflict
from tests.unit.testing.story import told
from workers.journal.memory import MemoryJournal
from workers.testing import DOMAIN_XML, Events, FakeHypervisor, Fleet, wall_clock
from workers.testing.fleet import provision
from workers.worker import Worker

pytestmark = pytest.mark.anyio


async def test_a_fleet_that_is_entered_is_ready(fleet: Fleet, events: Events) -> None:
    """All nodes are known, and a command has its effect at once."""
    assert ["n1", "n2"] == sorted(node.node for node in await fleet.client.nodes())
    result = await fleet.client.create_xml("web1", DOMAIN_XML)
    assert (True, True) == (result.ok, result.changed)
    started = await events.expect("lifecycle.started", domain="web1", node=result.node)
    assert "web1" == started.domainname


def test_the_same_seed_gives_the_same_events() -> None:
    """To the byte, through deaths, hangs and cuts; and another seed gives others."""
    assert told(7) == told(7)
    assert told(7) != told(8)


def test_another_process_gives_the_same_events() -> None:
    """Though its strings have other hashes, and its objects other places."""
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-m", "tests.unit.testing.story", "7"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], env=environment, check=True, capture_output=True, text=True)
    assert told(7) == done.stdout.splitlines()[-1]


async def test_half_an_hour_of_a_fleet_is_told_in_its_time(fleet: Fleet, events: Events) -> None:
    """Leases are renewed, nobody goes offline, and events bear the virtual time."""
    await anyio.sleep(1800)
    await fleet.client.create_xml("web1", DOMAIN_XML)
    assert "2026-01-01T00:30:00" == (await events.expect("lifecycle.started")).time[:19]
    assert "node.offline" not in events.names()


async def test_a_killed_worker_goes_on_from_its_journal(fleet: Fleet, hypervisor: FakeHypervisor, events: Events) -> None:
    """What it had begun is settled by looking, and not done again."""
    await fleet.client.create_xml("web1", DOMAIN_XML, node="n1")
    hang = hypervisor.hang("destroy", after=True)
    id = await fleet.client.post("web1", "destroy")
    await hang.met()
    await fleet.nodes["n1"].crash()
    assert not fleet.nodes["n1"].running
    await fleet.nodes["n1"].start()
    ended = await events.expect("command.succeeded", domain="web1", node="n1")
    ended = ended if ended.commandid == id else await events.expect("command.succeeded", domain="web1", node="n1")
    assert id == ended.commandid
    assert 1 == [verb for verb, _ in hypervisor.calls].count("destroy")


async def test_a_killed_worker_is_seen_to_be_offline_and_a_stopped_one_at_once(fleet: Fleet, events: Events) -> None:
    """The one when its lease ends; the other gives it back."""
    await anyio.sleep(60)
    await fleet.nodes["n1"].crash()
    began = anyio.current_time()
    await events.expect("node.offline")
    assert anyio.current_time() - began > 5
    await fleet.nodes["n2"].stop()
    began = anyio.current_time()
    await events.expect("node.offline")
    assert anyio.current_time() - began < 5


async def test_another_coordinator_takes_over() -> None:
    """When the one that led is killed."""
    async with Fleet(nodes=1, coordinators=2) as fleet:
        await fleet.coordinators["c1"].crash()
        await fleet.client.post("web1", "create-xml", {"xml": DOMAIN_XML})
        await fleet.events.expect("lifecycle.started", domain="web1")


async def test_a_worker_of_ones_own_takes_part(fleet: Fleet, events: Events) -> None:
    """It is placed on, hangs, and lives in virtual time, as those of the fleet do."""
    own = FakeHypervisor("memory:///own")
    told: list[str] = []
    async with fleet.bus("own") as bus, anyio.create_task_group() as tasks:
        await bus.link.up()
        worker = Worker(
            bus,
            node="own",
            hypervisors=[own],
            journal=MemoryJournal(),
            on_event=lambda event: told.append(event.name),
            lanes=own.lanes(),
            clock=wall_clock(),
        )
        async with worker:
            await tasks.start(worker.run)
            await events.expect("stream.resync", node="own")
            await fleet.client.create_xml("web1", DOMAIN_XML, node="own")
            hang = own.hang("destroy")
            await fleet.client.post("web1", "destroy")
            await hang.met()
            await anyio.sleep(10)
            hang.release()
            await events.expect("lifecycle.stopped", node="own")
    assert "lifecycle.stopped" in told


async def test_an_event_is_expected_once() -> None:
    """Each `expect` takes the next that fits; the first is not told twice."""
    async with Fleet(nodes=2) as fleet:
        nodes = [(await fleet.events.expect("node.online")).node for _ in range(2)]
        with pytest.raises(AssertionError, match=r"no node\.online of any domain within 5 s(.*\n)+.*node\.online"):
            await fleet.events.expect("node.online", within_s=5)
    assert ["n1", "n2"] == sorted(nodes)


async def test_an_error_of_the_program_leaves_the_fleet_as_it_came() -> None:
    """In no group: who tests reads what went wrong."""

    async def program() -> None:
        async with Fleet(nodes=1) as fleet:
            await fleet.client.create_xml("web1", DOMAIN_XML)
            await fleet.client.start("web1", condition=Condition(state="paused"))

    with pytest.raises(Conflict):
        await program()


async def test_nothing_hangs_on_behind_a_fleet() -> None:
    """A call that was never released ends with it."""
    hypervisor = FakeHypervisor()
    async with Fleet({"n1": hypervisor}) as fleet:
        await fleet.client.create_xml("web1", DOMAIN_XML)
        hang = hypervisor.hang("reboot")
        await fleet.client.post("web1", "reboot")
        await hang.met()
    assert hang.released


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_fleet_runs_in_real_time_too() -> None:
    """On an ordinary loop, with the clock of the machine."""
    async with Fleet(nodes=1) as fleet:
        assert (await fleet.client.create_xml("web1", DOMAIN_XML)).ok
        assert not (await fleet.events.expect("lifecycle.started", domain="web1", within_s=10)).time.startswith("2026-01-01T00:00")


async def test_a_bus_has_the_logs_of_an_installation(fleet: Fleet) -> None:
    """Made again, they stay as they are."""
    stored = await fleet.stored()
    assert stored
    await provision(fleet.broker, lambda: 0.0)
    assert stored == await fleet.stored()
