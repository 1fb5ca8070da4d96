"""Laws of jobs, in virtual time: how far one is, is told; it can be cancelled while it runs; and each command has one true end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

import anyio
import pytest

from orchestrator.event import CommandProgress
from orchestrator.protocol.error import Conflict, DeadlineExceeded
from orchestrator.protocol.event import TERMINAL, Event
from workers.drivers.port import Impossible, JobProgress
from workers.testing import DOMAIN_XML, FakeHypervisor, Fleet, VirtualLoop
from workers.testing.hypervisor import Hang

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run in virtual time."""
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Give a fleet of one node, with a domain `web1` that runs."""
    async with Fleet(1) as fleet:
        await fleet.client.create_xml("web1", DOMAIN_XML)
        yield fleet


def hypervisor(fleet: Fleet) -> FakeHypervisor:
    """Return that of the node."""
    return fleet.nodes["n1"].hypervisor


def tell(fleet: Fleet, remaining: int) -> None:
    """Say that the job of the domain has so many MiB left, of 100."""
    uuid = next(iter(hypervisor(fleet).machine.domains))
    figures = JobProgress(total=100 * MIB, processed=(100 - remaining) * MIB, remaining=remaining * MIB, elapsed_ms=7)
    hypervisor(fleet).jobs.tell(uuid, figures)


def data(event: Event) -> dict[str, Any]:
    """Return what an event says."""
    assert isinstance(event.data, dict)
    return event.data


def ends(fleet: Fleet, id: str) -> list[Event]:
    """Return the events that ended a command."""
    return [event for event in fleet.events.seen if event.commandid == id and event.name in TERMINAL]


def _deaf(uuid: str) -> None:
    """Take the wish to have a job given up, and do nothing about it."""


@asynccontextmanager
async def saving(fleet: Fleet, **options: Any) -> AsyncIterator[Hang]:
    """Have the domain saved under the id `save`, for as long as the value hangs."""
    hang = hypervisor(fleet).hang("managed-save")
    await fleet.client.post("web1", "managed-save", id="save", **options)
    await hang.met()
    yield hang
    hang.release()


async def test_a_save_stops_the_domain_and_a_start_goes_on_from_it(fleet: Fleet) -> None:
    """Both are absolute, as all verbs are; and who reads the state sees that there is an image."""
    client = fleet.client
    done = [await client.managed_save("web1"), await client.managed_save("web1")]
    assert [(True, "shutoff"), (False, "shutoff")] == [(result.changed, result.domain and result.domain.state) for result in done]
    seen = await client.get("web1")
    assert ("shutoff", "saved", True) == (seen.state, seen.reason, seen.saved)
    assert (await client.start("web1")).changed
    assert not (await client.get("web1")).saved
    await fleet.events.expect("lifecycle.started", domain="web1")
    assert "restored" == data(await fleet.events.expect("lifecycle.started", domain="web1"))["detail"]


async def test_what_was_saved_is_removed_once(fleet: Fleet) -> None:
    """Of that libvirt tells no event, so `state.changed` does. What is off and was not saved cannot be saved any more."""
    client = fleet.client
    await client.managed_save("web1")
    done = [await client.managed_save_remove("web1"), await client.managed_save_remove("web1")]
    assert [True, False] == [result.changed for result in done]
    assert not data(await fleet.events.expect("state.changed", domain="web1"))["saved"]
    with pytest.raises(Conflict):
        await client.managed_save("web1")


async def test_how_far_a_job_is_is_told_when_it_changes_twice_a_second_at_most(fleet: Fleet) -> None:
    """In bytes and percent, between `command.started` and the end, under the id of its command."""
    async with saving(fleet) as hang:
        for remaining in range(100, 40, -1):
            tell(fleet, remaining)
            await anyio.sleep(0.1)
        await anyio.sleep(30)
        hang.release()
        await fleet.events.expect("command.succeeded", domain="web1")  # that of its making
        await fleet.events.expect("command.succeeded", domain="web1")
        await anyio.sleep(5)
    told = [event for event in fleet.events.seen if event.commandid == "save" and event.name.startswith("command.")]
    names = [event.name for event in told]
    assert ["command.accepted", "command.started", "command.succeeded"] == [name for name in names if name != "command.progress"]
    assert "command.succeeded" == names[-1]
    progress = [event for event in told if isinstance(event, CommandProgress)]
    assert 8 <= len(progress) <= 13
    times = [datetime.fromisoformat(event.time) for event in progress]
    assert all((later - before).total_seconds() >= 0.5 for before, later in pairwise(times))
    assert {
        "id": "save", "verb": "managed-save", "percent": 59.0, "processed": 59 * MIB, "total": 100 * MIB, "remaining": 41 * MIB,
        "unit": "bytes", "elapsed_ms": 7,
    } == progress[-1].data  # fmt: skip
    assert (59.0, 41 * MIB) == (progress[-1].percent, progress[-1].remaining)


async def test_progress_does_not_pile_up_while_the_broker_is_away(fleet: Fleet) -> None:
    """Of ten seconds of it one event waits to leave, and what comes after that is told again."""
    async with saving(fleet):
        bus = fleet.nodes["n1"].bus
        fleet.broker.cut(bus)
        for remaining in range(100, 80, -1):
            tell(fleet, remaining)
            await anyio.sleep(0.5)
        fleet.broker.restore(bus)
        told = [await fleet.events.expect("command.progress", domain="web1") for _ in range(2)]
    assert (True, 19) == (data(told[0])["processed"] <= 2 * MIB, data(told[1])["processed"] // MIB)


async def test_a_job_that_runs_can_be_cancelled(fleet: Fleet) -> None:
    """It ends `cancelled`, the cancel succeeds, the domain runs on; a second cancel changes nothing."""
    async with saving(fleet):
        await anyio.sleep(10)
        began = anyio.current_time()
        done = await fleet.client.cancel("save")
        assert anyio.current_time() - began < 1
        again = await fleet.client.cancel("save")
    assert ([True, False], {"id": "save", "state": "cancelled"}) == ([done.changed, again.changed], done.result)
    [end] = ends(fleet, "save")
    assert ("command.cancelled", {"cancelled_by": done.id}) == (end.name, data(end)["result"])
    assert ("cancelled", "none", True) == tuple(data(end)["error"][name] for name in ("code", "outcome", "retryable"))
    assert "running" == (await fleet.client.get("web1")).state
    assert 1 == [verb for verb, _ in hypervisor(fleet).calls].count("managed-save")
    told = [event.name for event in fleet.events.seen if event.commandid in ("save", done.id) and event.name in TERMINAL]
    assert ["command.cancelled", "command.succeeded"] == told


async def test_a_job_is_cancelled_as_soon_as_the_hypervisor_knows_it(fleet: Fleet) -> None:
    """It may be asked before it has begun there."""
    for _ in range(3):
        hypervisor(fleet).refuse("abort")
    async with saving(fleet):
        assert (await fleet.client.cancel("save", domain="web1")).changed


async def test_a_job_that_is_faster_than_its_cancel_has_succeeded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth wins: the cancel is a conflict that tells it."""
    monkeypatch.setattr(hypervisor(fleet), "abort", _deaf)
    async with saving(fleet) as hang, anyio.create_task_group() as tasks:

        async def finish() -> None:
            await anyio.sleep(3)
            hang.release()

        tasks.start_soon(finish)
        with pytest.raises(Conflict):
            await fleet.client.cancel("save")
    [end] = ends(fleet, "save")
    assert ("command.succeeded", "saved") == (end.name, (await fleet.client.get("web1")).reason)


async def test_a_job_that_cannot_be_given_up_goes_on(fleet: Fleet) -> None:
    """A hypervisor without that call is the end of the cancel, and of nothing else."""
    hypervisor(fleet).faults.fail(Impossible("this function is not supported", code=3, domain=10), "abort")
    async with saving(fleet):
        with pytest.raises(Conflict, match="cannot be stopped"):
            await fleet.client.cancel("save")
    assert (await fleet.client.wait("web1", state="shutoff", timeout=60)).saved


async def test_a_job_that_does_not_stop_is_not_said_to_be_cancelled(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancel ends at its own deadline, and does not know."""
    monkeypatch.setattr(hypervisor(fleet), "abort", _deaf)
    async with saving(fleet):
        began = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as late:
            await fleet.client.cancel("save")
        assert "unknown" == late.value.outcome
        assert anyio.current_time() - began < 120
        assert [] == ends(fleet, "save")
    assert (await fleet.client.wait("web1", state="shutoff", timeout=60)).saved


async def test_a_job_that_overruns_is_not_given_up(fleet: Fleet) -> None:
    """Its command has failed, nothing more is told of how far it is, and what became of it is settled."""
    async with saving(fleet, timeout=20):
        tell(fleet, 90)
        failed = await fleet.events.expect("command.failed", domain="web1")
        assert ("deadline", "unknown") == (data(failed)["error"]["code"], data(failed)["error"]["outcome"])
        tell(fleet, 10)
        await anyio.sleep(20)
        with pytest.raises(Conflict):
            await fleet.client.cancel("save")
    settled = await fleet.events.expect("command.settled", domain="web1")
    assert ("applied", "save") == (data(settled)["outcome"], settled.commandid)
    assert 1 == sum(isinstance(event, CommandProgress) for event in fleet.events.seen)


async def test_a_job_that_outlives_its_worker_is_waited_for(fleet: Fleet) -> None:
    """Whatever the daemon makes of it is its end; it is not asked for again."""
    async with saving(fleet) as hang:
        await fleet.nodes["n1"].crash()
        await fleet.nodes["n1"].start()
        tell(fleet, 50)
        assert "save" == (await fleet.events.expect("command.progress", domain="web1")).commandid
        await anyio.sleep(20)
        assert [] == ends(fleet, "save")
        hang.release()
        await fleet.client.wait("web1", state="shutoff", timeout=60)
        await anyio.sleep(5)
    assert ["command.succeeded"] == [event.name for event in ends(fleet, "save")]
    assert 1 == [verb for verb, _ in hypervisor(fleet).calls].count("managed-save")


async def test_a_job_that_outlives_its_worker_can_be_cancelled(fleet: Fleet) -> None:
    """As one of this worker's own."""
    async with saving(fleet):
        await fleet.nodes["n1"].crash()
        await fleet.nodes["n1"].start()
        await anyio.sleep(5)
        assert (await fleet.client.cancel("save")).changed
    assert ["command.cancelled"] == [event.name for event in ends(fleet, "save")]
    assert "running" == (await fleet.client.get("web1")).state


async def test_a_cancel_outlives_the_worker_that_was_at_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have one end, and the cancel knows the deed for its own."""
    with monkeypatch.context() as deaf:
        deaf.setattr(hypervisor(fleet), "abort", _deaf)
        async with saving(fleet), anyio.create_task_group() as tasks:
            results = []

            async def cancel() -> None:
                results.append(await fleet.client.cancel("save"))

            tasks.start_soon(cancel)
            await anyio.sleep(5)
            await fleet.nodes["n1"].crash()
            deaf.undo()
            await fleet.nodes["n1"].start()
    assert ["command.cancelled"] == [event.name for event in ends(fleet, "save")]
    assert [True] == [result.changed for result in results]


async def test_who_waits_for_a_second_is_told_that_the_command_is_known_and_then_that_it_runs(fleet: Fleet) -> None:
    """Of a command that ends at once nothing but its end is told."""
    async with saving(fleet):
        await fleet.client.post("web1", "destroy", id="next")
        await anyio.sleep(10)
        assert ["command.accepted"] == [event.name for event in fleet.events.seen if event.commandid == "next"]
        hang = hypervisor(fleet).hang("start")
        await fleet.client.post("web1", "start", id="last")
    await hang.met()
    await anyio.sleep(10)
    told = [event.name for event in fleet.events.seen if event.commandid == "last" and event.name.startswith("command.")]
    assert ["command.accepted", "command.started"] == told
    hang.release()
    await fleet.client.wait("web1", state="running", timeout=10)
    await fleet.client.set_autostart("web1", id="quick")
    await anyio.sleep(5)
    assert ["command.succeeded"] == [event.name for event in fleet.events.seen if event.commandid == "last"][-1:]
    quick = {event.name for event in fleet.events.seen if event.commandid == "quick"}
    assert not quick & {"command.accepted", "command.started"}
