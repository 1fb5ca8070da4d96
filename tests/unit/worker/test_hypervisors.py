"""Laws of a node with several hypervisors: each domain has one home, and what ails one is no other's loss."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from orchestrator.protocol.error import Invalid
from orchestrator.protocol.verb import NoArgs, XmlArgs
from tests.unit.worker.world import NODE, WEB1, WEB2, World, kinds, world
from workers.drivers.memory import MemoryDriver
from workers.drivers.port import Lost, Tag
from workers.engine import health, hypervisor, lease
from workers.worker import Worker

pytestmark = pytest.mark.anyio
TAG = Tag(project="default")
QEMU, LXC = "memory:///qemu", "memory:///lxc"


def xml(type: str, name: str = "web1", uuid: str = "") -> str:
    """Return a domain of a type."""
    return f"<domain type='{type}'><name>{name}</name>{f'<uuid>{uuid}</uuid>' if uuid else ''}<memory>8192</memory></domain>"


class Two:
    """A node with a hypervisor for machines and one for containers."""

    def __init__(self, node: World) -> None:
        self.node = node
        self.qemu = MemoryDriver(QEMU, types=("qemu", "kvm"))
        self.lxc = MemoryDriver(LXC, types=("lxc",), lacks=("reset",))

    def worker(self) -> Any:
        """Run a worker over both."""
        return self.node.worker(hypervisors=[self.qemu, self.lxc])

    async def make(self, type: str, uuid: str = WEB1, name: str = "web1", **args: str) -> dict[str, Any]:
        """Create a domain; return the result."""
        return await self.node.do("create-xml", uuid, args={"xml": xml(type, name), **args})

    def have(self, driver: MemoryDriver, type: str, uuid: str = WEB1, name: str = "web1") -> None:
        """Let a hypervisor have a running domain that no command made."""
        driver.machine.define(uuid, XmlArgs(xml=xml(type, name, uuid)), TAG)
        driver.machine.start(uuid, NoArgs(), TAG)

    async def record(self) -> dict[str, Any]:
        """Return the node record."""
        message = await self.node.client.last("KV_virt_nodes", f"$KV.virt_nodes.{NODE}")
        assert message is not None
        record: dict[str, Any] = json.loads(message.body)
        return record

    async def told(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for events of a name; return them all."""
        events = await self.node.until(lambda events: len([one for one in events if one["type"].endswith(name)]) >= count)
        return [one for one in events if one["type"].endswith(name)]


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield Two(made)


@pytest.mark.parametrize(("type", "expected"), [("kvm", QEMU), ("lxc", LXC)])
async def test_the_type_in_the_xml_chooses_the_hypervisor(two: Two, type: str, expected: str) -> None:
    """Nothing else need be said."""
    async with two.worker():
        assert (await two.make(type))["ok"]
        assert expected == (await two.node.state() or {})["hypervisor"]
        for verb in ("suspend", "resume", "destroy", "undefine"):
            assert (verb, True) == (verb, (await two.node.do(verb))["changed"])


async def test_the_sender_may_name_one_of_two_of_a_kind(two: Two) -> None:
    """By URI; a type takes the first that runs it."""
    two.lxc = MemoryDriver(LXC, types=("qemu",))
    async with two.worker():
        await two.make("qemu", hypervisor=LXC)
        await two.make("qemu", WEB2, "web2", hypervisor="qemu")
        assert [LXC, QEMU] == [(await two.node.state(uuid) or {})["hypervisor"] for uuid in (WEB1, WEB2)]


@pytest.mark.parametrize(
    ("type", "args", "words"),
    [("xen", {}, "runs domains of type 'xen'"), ("kvm", {"hypervisor": "xen"}, "no 'xen'"), ("kvm", {"hypervisor": LXC}, "type 'kvm'")],
)
async def test_what_no_hypervisor_can_is_unsupported_and_names_what_lacks(two: Two, type: str, args: dict[str, str], words: str) -> None:
    """And no hypervisor was asked."""
    async with two.worker():
        result = await two.make(type, **args)
    assert ("unsupported", "none") == (result["error"]["code"], result["error"]["outcome"])
    assert words in result["error"]["message"]
    assert [] == two.qemu.calls + two.lxc.calls


async def test_a_verb_that_one_hypervisor_lacks_is_unsupported_there_alone(two: Two) -> None:
    """Before anything happens, with what lacks."""
    async with two.worker():
        await two.make("lxc")
        await two.make("qemu", WEB2, "web2")
        refused, done = await two.node.do("reset"), await two.node.do("reset", WEB2)
    assert ("unsupported", "none", True) == (refused["error"]["code"], refused["error"]["outcome"], done["ok"])
    assert f"{LXC} cannot reset: the memory driver was told to lack it" == refused["error"]["message"]
    assert ("reset", WEB1) not in two.lxc.calls


async def test_a_domain_stays_where_it_is_whatever_the_sender_names(two: Two) -> None:
    """A redefinition does not move it."""
    async with two.worker():
        await two.make("qemu")
        result = await two.node.do("define-xml", args={"xml": xml("qemu"), "hypervisor": "lxc"})
    assert ("conflict", True) == (result["error"]["code"], QEMU in result["error"]["message"])


async def test_a_hypervisor_that_is_lost_leaves_the_other_at_work(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, the lease lives on, and the node's record says which one is away."""
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    monkeypatch.setattr(hypervisor, "BACKOFF_S", (0.02,))
    async with two.worker():
        await two.make("lxc")
        for _ in range(400):
            two.lxc.faults.fail(Lost("the daemon is gone"), "open")
        two.lxc.sever("the daemon is gone")
        told = (await two.told("node.degraded"))[0]["data"]
        assert (NODE, LXC, False, [LXC]) == (told["node"], told["hypervisor"], told["connected"], told["lost"])
        assert (await two.make("qemu", WEB2, "web2"))["ok"]
        with anyio.fail_after(5):
            while [one["connected"] for one in (await two.record())["hypervisors"]] != [True, False]:
                await anyio.sleep(0.02)
        renewed = await two.node.client.last("KV_virt_leases", f"$KV.virt_leases.{NODE}")
        with anyio.fail_after(5):
            while await two.node.client.last("KV_virt_leases", f"$KV.virt_leases.{NODE}") == renewed:
                await anyio.sleep(0.02)
        while two.lxc.faults.take("open") is not None:
            pass
        told = (await two.told("node.degraded", 2))[1]["data"]
        assert (LXC, True, []) == (told["hypervisor"], told["connected"], told["lost"])
        assert (await two.node.do("destroy"))["changed"]


async def test_a_hypervisor_that_hangs_leaves_the_other_at_work(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls hang in it, and it is not asked for proof again and again."""
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    monkeypatch.setattr(health, "HEALTH_S", 0.5)
    async with two.worker():
        hanging = [two.lxc.faults.hang(step) for step in ["look"] * 40 + ["free_memory_kib"]]
        for number in range(40):
            await two.node.send("destroy", f"6f1c0000-0000-4000-9000-{number:012d}", body={"timeout_s": 600})
            two.lxc.machine.define(f"6f1c0000-0000-4000-9000-{number:012d}", XmlArgs(xml=xml("lxc", f"c{number}")), TAG)
        told = (await two.told("node.degraded"))[0]["data"]
        assert (LXC, [LXC]) == (told["hypervisor"], told["lost"])
        with anyio.fail_after(5):
            assert (await two.make("qemu"))["ok"]
            assert (await two.node.do("suspend"))["changed"]
        for one in hanging:
            one.release()
        assert (await two.told("node.degraded", 2))[1]["data"]["connected"]


async def test_the_same_uuid_on_two_hypervisors_is_told_and_no_command_touches_either(two: Two) -> None:
    """Until one of them is removed where it is; then the other is the domain."""
    two.have(two.qemu, "qemu")
    two.have(two.lxc, "lxc")
    async with two.worker():
        told = (await two.told("health.duplicate-domain"))[0]
        assert (WEB1, {QEMU, LXC}) == (told["subject"], set(told["data"]["hypervisors"]))
        result = await two.node.do("destroy")
        assert "conflict" == result["error"]["code"]
        assert QEMU in result["error"]["message"]
        assert LXC in result["error"]["message"]
        home = told["data"]["hypervisors"][0]
        kept, left = (two.qemu, two.lxc) if home == QEMU else (two.lxc, two.qemu)
        kept.machine.destroy(WEB1, NoArgs(), TAG)
        kept.machine.undefine(WEB1)
        resolved = (await two.told("health.duplicate-domain", 2))[1]
        assert [left.uri] == resolved["data"]["hypervisors"]
        assert (await two.node.do("destroy"))["changed"]
        assert left.uri == (await two.node.state() or {})["hypervisor"]
    assert {("destroy", WEB1)} == set(left.calls)


async def test_a_second_domain_with_a_uuid_is_told_by_its_first_event(two: Two) -> None:
    """And when it is gone again."""
    async with two.worker():
        await two.make("qemu")
        two.have(two.lxc, "lxc")
        assert [QEMU, LXC] == (await two.told("health.duplicate-domain"))[0]["data"]["hypervisors"]
        assert "conflict" == (await two.node.do("suspend"))["error"]["code"]
        two.lxc.machine.destroy(WEB1, NoArgs(), TAG)
        two.lxc.machine.undefine(WEB1)
        assert [QEMU] == (await two.told("health.duplicate-domain", 2))[1]["data"]["hypervisors"]
        assert (await two.node.do("suspend"))["changed"]
        events = kinds(await two.node.events())
    assert 1 == events.count("lifecycle.started")


async def test_a_domain_that_moved_to_another_hypervisor_while_nobody_looked_is_told_to_have_moved(two: Two) -> None:
    """It ends at the one and begins at the other; it is no double."""
    async with two.worker():
        await two.make("qemu")
    two.qemu.machine.destroy(WEB1, NoArgs(), TAG)
    two.qemu.machine.undefine(WEB1)
    two.have(two.lxc, "lxc")
    async with two.worker():
        await two.node.until(lambda events: kinds(events)[-4:].count("lifecycle.started") == 1 and "lifecycle.undefined" in kinds(events))
        assert (await two.node.do("suspend"))["changed"]
        state = await two.node.state() or {}
    assert (LXC, "lxc", "paused") == (state["hypervisor"], state["type"], state["state"])


async def test_domains_of_a_hypervisor_that_is_served_no_more_are_unknown(two: Two) -> None:
    """Not gone; and back when it is served again."""
    async with two.worker():
        await two.make("lxc")
    async with two.node.worker(hypervisors=[two.qemu]):
        await two.told("state.changed")
        result = await two.node.do("destroy")
        assert ("node_unavailable", True) == (result["error"]["code"], LXC in result["error"]["message"])
        state = await two.node.state() or {}
        assert ("unknown", "not-served", LXC) == (state["state"], state["reason"], state["hypervisor"])
    async with two.worker():
        assert (await two.node.do("destroy"))["changed"]


@pytest.mark.parametrize("home", ["qemu", "lxc"])
async def test_a_creation_that_was_cut_off_is_settled_where_it_was_begun(two: Two, home: str) -> None:
    """By looking at all that may have it."""
    driver = two.qemu if home == "qemu" else two.lxc
    hanging = driver.faults.hang("start", after=True)
    async with two.worker():
        sequence = await two.node.send("create-xml", body={"args": {"xml": xml(home)}})
        with anyio.fail_after(5):
            await anyio.to_thread.run_sync(hanging.entered.wait)
    hanging.release()
    async with two.worker():
        result = await two.node.ended(f"m-run-{sequence}")
        assert (True, True) == (result["ok"], result["changed"])
        assert driver.uri == (await two.node.state() or {})["hypervisor"]


async def test_a_domain_that_nobody_told_of_is_looked_for_on_all(two: Two) -> None:
    """A hypervisor may have it and not have said so yet; one that is away makes the answer unknown, not no."""
    two.lxc = MemoryDriver(LXC, types=("lxc",), tells=False)
    async with two.worker():
        two.have(two.lxc, "lxc")
        assert (await two.node.do("suspend"))["changed"]
        assert "not_found" == (await two.node.do("suspend", WEB2))["error"]["code"]
        two.qemu.faults.hang("open")
        two.qemu.sever("away")
        await two.told("node.degraded")
        result = await two.node.do("suspend", WEB2, timeout_s=5)
        assert ("node_unavailable", True) == (result["error"]["code"], QEMU in result["error"]["message"])


@pytest.mark.parametrize("tells", [True, False])
async def test_without_metadata_the_journal_keeps_whose_a_domain_is(two: Two, tells: bool) -> None:
    """Through restarts, redefinitions and queries; what no command made belongs to the default project."""
    two.qemu = MemoryDriver(QEMU, types=("qemu",), keeps=False, tells=tells)
    async with two.worker():
        sequence = await two.node.send("create-xml", project="team", body={"args": {"xml": xml("qemu")}})
        assert (await two.node.ended(f"m-run-{sequence}"))["ok"]
        two.have(two.qemu, "qemu", WEB2, "web2")
        await two.node.until(lambda events: "lifecycle.started" in kinds(events, WEB2))
    two.qemu.machine.suspend(WEB1, NoArgs(), TAG)
    async with two.worker():
        for verb in ("resume", "destroy"):
            sequence = await two.node.send(verb, project="team")
            assert (await two.node.ended(f"m-run-{sequence}"))["changed"]
        assert "not_found" == (await two.node.do("start"))["error"]["code"]
        team, default = await two.node.state(project="team"), await two.node.state(WEB2)
    assert team is not None
    assert default is not None
    assert ("team", None, "default") == (team["project"], team["incarnation"], default["project"])


async def test_a_worker_refuses_the_same_hypervisor_twice(two: Two) -> None:
    """Every domain would be a double."""
    with pytest.raises(Invalid, match="twice"):
        Worker(two.node.bus, node=NODE, hypervisors=[two.qemu, MemoryDriver(QEMU)], data_dir="unused")
