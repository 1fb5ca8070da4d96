"""Laws of a node's events: in order, without holes, once; what nobody saw is told inside a bracket."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from orchestrator.protocol.verb import NoArgs, XmlArgs
from tests.e2e import audit
from tests.unit.worker.world import NODE, WEB1, WEB2, XML, World, kinds, world
from workers.drivers.port import Rejected, Tag
from workers.engine.lease import Taken
from workers.journal.memory import MemoryDisk

pytestmark = pytest.mark.anyio
TAG = Tag(project="default")


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield made


def have_running(node: World, uuid: str = WEB1, name: str = "web1") -> None:
    """Let the hypervisor have a running domain that virtbus knows nothing of."""
    node.driver.machine.define(uuid, XmlArgs(xml=XML.format(name=name).replace("</name>", f"</name><uuid>{uuid}</uuid>")), TAG)
    node.driver.machine.start(uuid, NoArgs(), TAG)


async def test_starting_on_a_host_with_domains_changes_nothing_and_tells_them(node: World) -> None:
    """Each as synthetic events inside the bracket, after `node.online`."""
    have_running(node)
    async with node.worker():
        events = await node.until(lambda events: any(event["type"].endswith("stream.resync") for event in events))
        names = [event["type"].removeprefix("virt.v1.") for event in events]
        assert names == ["node.online", "stream.gap", "lifecycle.defined", "lifecycle.started", "stream.resync"]
        assert [event.get("synthetic", False) for event in events] == [False, False, True, True, False]
        assert events[0]["data"] == {"node": NODE, "previous": None}
        with anyio.fail_after(5):
            while (state := await node.state()) is None:
                await anyio.sleep(0.01)
        assert (state["state"], state["incarnation"]) == ("running", events[3]["incarnation"])
    assert node.driver.calls == []


async def test_what_happens_behind_our_back_is_told_like_our_own(node: World) -> None:
    """Without a command as its cause."""
    async with node.worker():
        await node.create()
        node.driver.machine.suspend(WEB1, NoArgs(), TAG)
        events = await node.until(lambda events: "lifecycle.suspended" in kinds(events))
        assert "commandid" not in events[-1]
        assert events[-1]["data"]["event"] == "suspended"


async def test_what_changed_while_the_worker_was_down_is_told_when_it_is_back(node: World) -> None:
    """Inside the bracket; the new epoch says where the old one ended."""
    async with node.worker():
        await node.create()
        await node.create(WEB2, "web2")
        last = (await node.events())[-1]
    node.driver.machine.destroy(WEB1, NoArgs(), TAG)
    node.driver.machine.destroy(WEB2, NoArgs(), TAG)
    node.driver.machine.start(WEB2, NoArgs(), TAG)
    async with node.worker():

        def resynced(events: list[dict[str, object]]) -> bool:
            return sum(str(event["type"]).endswith("stream.resync") for event in events) == 2

        events = await node.until(resynced)
        again = [event for event in events if event["epoch"] != last["epoch"]]
        assert again[0]["data"] == {"node": NODE, "previous": {"epoch": last["epoch"], "sequence": last["sequence"]}}
        assert kinds(again, WEB1) == ["lifecycle.stopped"]
        assert kinds(again, WEB2) == ["lifecycle.stopped", "lifecycle.started"]
        audit.check_sequences(events, NODE)


async def test_a_hypervisor_that_was_lost_is_scanned_when_it_is_back(node: World) -> None:
    """A daemon's restart ends neither worker nor domains."""
    async with node.worker():
        await node.create()
        node.driver.sever("daemon restarted")
        node.driver.machine.suspend(WEB1, NoArgs(), TAG)
        events = await node.until(lambda events: sum(event["type"].endswith("stream.resync") for event in events) == 2)
        bracket = [event["type"].removeprefix("virt.v1.") for event in events[-3:]]
        assert bracket[0::2] == ["stream.gap", "stream.resync"]
        assert bracket[1] == "lifecycle.suspended"


async def test_events_made_while_the_broker_is_away_come_in_order_and_once(node: World) -> None:
    """Whatever was under way when it went."""
    async with node.worker():
        await node.create()
        for round_ in range(5):
            node.driver.machine.suspend(WEB1, NoArgs(), TAG)
            node.broker.cut(node.bus)
            node.driver.machine.resume(WEB1, NoArgs(), TAG)
            await anyio.sleep(0.01 * round_)
            node.broker.restore(node.bus)
        await node.do("destroy")
        events = await node.events()
        audit.check_sequences(events, NODE)
        lived = [name for name in kinds(events) if name in ("lifecycle.suspended", "lifecycle.resumed")]
        assert lived[1:] == ["lifecycle.suspended", "lifecycle.resumed"] * 5


async def test_what_the_outbox_held_at_a_crash_goes_out_first_under_its_ids(node: World) -> None:
    """Epoch after epoch, no hole in either."""
    async with node.worker():
        await node.create()
        node.broker.cut(node.bus)
        node.driver.machine.suspend(WEB1, NoArgs(), TAG)
        with anyio.fail_after(5):
            while not any(b"suspended" in row.body for row in node.disk.contents.recovery(time.time()).outbox):
                await anyio.sleep(0.01)
    node.broker.restore(node.bus)
    async with node.worker():
        await node.do("resume")
        events = await node.events()
        audit.check_sequences(events, NODE)
        names = [event["type"].removeprefix("virt.v1.") for event in events]
        assert names.index("lifecycle.suspended") < names.index("node.online", 1)


async def test_a_second_worker_of_the_node_is_refused_while_the_first_lives(node: World) -> None:
    """One writer a key, one writer a subject tree."""
    other = World()
    other.broker, other.bus, other.client = node.broker, node.client, node.client
    other.disk = MemoryDisk()
    async with node.worker():
        with pytest.raises(ExceptionGroup) as failure:
            async with other.worker():
                pass
        assert failure.value.subgroup(Taken) is not None


async def test_a_restarted_worker_takes_its_own_lease_over_at_once(node: World) -> None:
    """The journal knows the epoch that holds it."""
    async with node.worker():
        await node.create()
    started = time.monotonic()
    async with node.worker():
        assert (await node.do("suspend"))["ok"]
    assert time.monotonic() - started < 10


async def test_a_worker_that_quiesced_leaves_nothing_waiting_and_gives_its_lease_back(node: World) -> None:
    """So that the node is seen to be gone at once."""
    async with node.worker() as worker:
        await node.create()
        await node.send("suspend", body={"id": "a"})
        await node.ended("a")
        with anyio.fail_after(5):
            await worker.quiesce()
        lease = await node.client.last("KV_virt_leases", f"$KV.virt_leases.{NODE}")
        assert lease is not None
        assert lease.body == b""
    assert node.disk.contents.recovery(time.time()).outbox == []


async def test_the_lease_says_how_far_all_is_done(node: World) -> None:
    """What lies at or below `done` may be trimmed."""
    async with node.worker() as worker:
        await node.create()
        sequence = await node.send("suspend", body={"id": "a"})
        await node.ended("a")
        assembly = worker._assembly
        assert assembly is not None
        with anyio.fail_after(5):
            await assembly._healthy()
            await assembly._lease._renew()
        message = await node.client.last("KV_virt_leases", f"$KV.virt_leases.{NODE}")
        assert message is not None
        lease = json.loads(message.body)
        assert (lease["cursor"], lease["done"]) == (sequence, sequence)


async def test_an_instance_that_could_not_be_marked_is_marked_soon(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hypervisor was busy with it when it was looked at; nobody need touch it for that to be made good."""
    monkeypatch.setattr("workers.engine.runner.LINGER_S", 0.05)
    have_running(node)
    node.driver.faults.fail(Rejected("busy"), "mark")
    async with node.worker():
        events = await node.until(lambda events: any(event["type"].endswith("state.changed") for event in events))
        assert (None, events[-1]["data"]["incarnation"]) == (events[3].get("incarnation"), events[-1].get("incarnation"))
        assert events[-1]["data"]["incarnation"] is not None
