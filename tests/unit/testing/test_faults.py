"""A hypervisor does what a test asks of it: once, at the step named, and nothing else runs meanwhile."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from orchestrator.protocol.command import DomainRef, Result
from orchestrator.protocol.error import HypervisorRefused
from orchestrator.protocol.verb import NoArgs
from workers.testing import DOMAIN_XML, Events, FakeHypervisor, Fleet, Recorder
from workers.testing.stage import TAG

pytestmark = pytest.mark.anyio


async def test_a_fault_asked_for_happens_once(fleet: Fleet, hypervisor: FakeHypervisor) -> None:
    """The next call of that step is refused, the one after it is not."""
    await created(fleet)
    hypervisor.refuse("destroy", "out of order")
    with pytest.raises(HypervisorRefused, match="out of order"):
        await fleet.client.destroy("web1")
    assert (await fleet.client.destroy("web1")).ok


async def test_a_fault_after_the_effect_leaves_the_effect(fleet: Fleet, hypervisor: FakeHypervisor, events: Events) -> None:
    """The hypervisor did it and said no; the worker looks, and sees that it is done."""
    await created(fleet)
    fault = hypervisor.refuse("suspend", after=True)
    assert (await fleet.client.suspend("web1")).ok
    assert fault.entered.is_set()
    await events.expect("lifecycle.suspended", domain="web1")


async def test_a_call_hangs_until_it_is_released_and_time_goes_on(fleet: Fleet, hypervisor: FakeHypervisor) -> None:
    """The command takes as long as its call, and the fleet lives meanwhile."""
    await created(fleet)
    hang = hypervisor.hang("destroy")
    results: list[Result] = []

    async def destroy() -> None:
        results.append(await fleet.client.destroy("web1", timeout=60))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(destroy)
        await hang.met()
        await anyio.sleep(20)
        assert (await fleet.client.create_xml("web2", DOMAIN_XML, node="n1")).ok
        hang.release()
        hang.release()
    assert [20_000.0] == [result.duration_ms for result in results]


async def test_a_hypervisor_that_is_lost_comes_back_only_when_it_is_restored(
    fleet: Fleet, hypervisor: FakeHypervisor, events: Events
) -> None:
    """What happened meanwhile is found by looking: nobody was told."""
    uuid = (await created(fleet)).uuid
    await events.expect("stream.resync", node="n1")
    hypervisor.lose()
    hypervisor.machine.crash(uuid)
    await anyio.sleep(60)
    assert "lifecycle.stopped" not in events.names("web1")
    hypervisor.restore()
    stopped = await events.expect("lifecycle.stopped", domain="web1")
    assert stopped.synthetic
    await events.expect("stream.resync", node="n1")


async def test_events_held_come_late_and_in_order(fleet: Fleet, hypervisor: FakeHypervisor, events: Events) -> None:
    """The command does not wait for its event for ever: it looks; and the event is told when it comes."""
    await created(fleet)
    hypervisor.hold_events()
    assert 1000.0 == (await fleet.client.suspend("web1")).duration_ms
    await events.expect("lifecycle.suspended", domain="web1")
    hypervisor.machine.resume(hypervisor.calls[-1][1], NoArgs(), TAG)
    hypervisor.release_events()
    late = [await events.expect(f"lifecycle.{event}", domain="web1") for event in ("suspended", "started", "resumed", "resumed")]
    assert ["lifecycle.suspended", "lifecycle.resumed"] == [event.name for event in (late[0], late[3]) if not event.synthetic]
    assert late[0].sequence < late[3].sequence


async def test_held_events_are_lost_with_the_connection(fleet: Fleet, hypervisor: FakeHypervisor, events: Events) -> None:
    """What happened is found by looking, once."""
    uuid = (await created(fleet)).uuid
    hypervisor.hold_events()
    hypervisor.machine.crash(uuid)
    hypervisor.sever("cut")
    hypervisor.release_events()
    assert (await events.expect("lifecycle.stopped", domain="web1")).synthetic
    await anyio.sleep(60)
    assert 1 == events.names("web1").count("lifecycle.stopped")


async def test_a_hypervisor_hangs_under_ordinary_threads_too() -> None:
    """Who embeds a worker that has its own threads may steer it as well."""
    hypervisor = FakeHypervisor()
    hypervisor.open(Recorder())
    hang = hypervisor.hang("scan")
    scan = asyncio.ensure_future(asyncio.to_thread(hypervisor.scan))
    await hang.met()
    assert not scan.done()
    hang.release()
    assert [] == await scan


async def created(fleet: Fleet) -> DomainRef:
    """Return a running domain `web1` on node `n1`."""
    domain = (await fleet.client.create_xml("web1", DOMAIN_XML, node="n1")).domain
    assert domain is not None
    return domain
