"""Laws of a hypervisor that tells no events: what happens there is told all the same, a little later, and marked as found out."""

from __future__ import annotations

import uuid as _uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import libvirt
import pytest

from orchestrator.protocol.verb import NoArgs, XmlArgs
from tests import hypervisors
from tests.e2e import audit
from tests.unit.worker.world import NODE, WEB1, XML, World, kinds, world
from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.memory import MemoryDriver
from workers.drivers.port import Tag
from workers.engine import effect, hypervisor

pytestmark = pytest.mark.anyio
TAG = Tag(project="default")


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Give a node with a silent hypervisor, whose worker does not run yet."""
    monkeypatch.setattr(hypervisor, "POLL_S", 0.02)
    monkeypatch.setattr(effect, "POLL_S", 0.02)
    async with world() as made:
        made.driver = MemoryDriver(tells=False)
        yield made


def of(events: list[dict[str, Any]], uuid: str = WEB1) -> list[dict[str, Any]]:
    """Return the events of a domain."""
    return [event for event in events if event["subject"] == uuid]


async def test_what_happens_behind_our_back_is_found_out_and_marked(node: World) -> None:
    """A domain that comes, pauses, runs on, stops and goes: each difference is told once, as synthetic."""
    machine = node.driver.machine
    steps: list[tuple[str, Callable[[], None]]] = [
        ("lifecycle.started", lambda: machine.start(WEB1, NoArgs(), TAG)),
        ("lifecycle.suspended", lambda: machine.suspend(WEB1, NoArgs(), TAG)),
        ("lifecycle.resumed", lambda: machine.resume(WEB1, NoArgs(), TAG)),
        ("lifecycle.stopped", lambda: machine.power_off(WEB1)),
        ("lifecycle.undefined", lambda: machine.undefine(WEB1)),
    ]
    async with node.worker():
        machine.define(WEB1, XmlArgs(xml=XML.format(name="web1")), TAG)
        await node.until(lambda events: "lifecycle.defined" in kinds(events))
        for name, step in steps:
            step()
            events = await node.until(lambda events, name=name: name in kinds(events))  # type: ignore[misc]
    assert ["lifecycle.defined", *(name for name, _ in steps)] == kinds(events)
    assert {True} == {event["synthetic"] for event in of(events)}
    audit.check_sequences(events, NODE)


async def test_a_stop_and_a_start_between_two_looks_are_seen_by_the_incarnation(node: World) -> None:
    """The state is as before, the running instance is another one."""
    async with node.worker():
        await node.create()
        node.driver.machine.destroy(WEB1, NoArgs(), TAG)
        node.driver.machine.start(WEB1, NoArgs(), TAG)
        events = await node.until(lambda events: kinds(events).count("lifecycle.started") == 2)
    first, second = (event["incarnation"] for event in of(events) if event["type"].endswith("lifecycle.started"))
    assert (True, True) == (first != second, "lifecycle.stopped" in kinds(events))


async def test_commands_have_their_effects_told_before_their_end(node: World) -> None:
    """As synthetic events that name the command; nothing waits for an event that cannot come."""
    async with node.worker():
        await node.create()
        with anyio.fail_after(effect.PATIENCE_S * 2):
            for verb in ("suspend", "resume", "destroy", "start"):
                assert (await node.do(verb, id=f"c-{verb}"))["changed"]
        events = await node.events()
    for verb, told in (("suspend", "suspended"), ("resume", "resumed"), ("destroy", "stopped"), ("start", "started")):
        caused = [event for event in events if event.get("commandid") == f"c-{verb}"]
        assert [f"virt.v1.lifecycle.{told}", "virt.v1.command.succeeded"] == [event["type"] for event in caused]
        assert caused[0]["synthetic"]


async def test_a_guest_that_was_asked_is_looked_at_until_it_has_obeyed(node: World) -> None:
    """Or until the deadline, if it does not."""
    async with node.worker():
        await node.create()
        node.driver.machine.obeys = False
        sequence = await node.send("shutdown", body={"timeout_s": 30})
        await node.until(lambda _: ("shutdown", WEB1) in node.driver.calls)
        node.driver.machine.power_off(WEB1)
        result = await node.ended(f"m-run-{sequence}")
        assert (True, "shutoff") == (result["changed"], result["domain"]["state"])
        await node.do("start")
        assert "deadline" == (await node.do("shutdown", timeout_s=0.3))["error"]["code"]


async def test_a_hypervisor_that_tells_is_not_polled(node: World) -> None:
    """Its events say all, sooner and cheaper."""
    node.driver = MemoryDriver()
    async with node.worker():
        await node.create()
        events = await node.events()
        node.driver.faults.fail(AssertionError("scanned again"), "scan")  # type: ignore[arg-type]  # whoever scans shall notice
        await anyio.sleep(0.1)
        assert node.driver.faults.take("scan") is not None
    assert not any(event.get("synthetic") for event in events)


async def test_libvirts_driver_without_events_is_polled_as_well(node: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As VirtualBox: the registration is refused, so the ability names no events."""

    def refuse(*_: Any) -> None:
        error = libvirt.libvirtError("this function is not supported by the connection driver")
        error.err = (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_FROM_DOMAIN, "no", 2, None, None, None, -1, -1)
        raise error

    monkeypatch.setattr(libvirt.virConnect, "domainEventRegisterAny", refuse)
    description = tmp_path / "node.xml"
    description.write_text("<node/>")
    driver = LibvirtDriver(f"test://{description}")
    uuid = str(_uuid.uuid4())
    async with node.worker(hypervisors=[driver]):
        assert (await node.do("create-xml", uuid, args={"xml": hypervisors.test_xml("web1", uuid)}))["changed"]
        driver.run("suspend", uuid, NoArgs(), TAG)
        events = await node.until(lambda events: "lifecycle.suspended" in kinds(events, uuid))
        assert (await node.do("destroy", uuid))["changed"]
    assert {"lifecycle.defined", "lifecycle.started", "lifecycle.suspended"} <= set(kinds(events, uuid))
    assert {True} == {event["synthetic"] for event in of(events, uuid) if ".lifecycle." in event["type"]}
