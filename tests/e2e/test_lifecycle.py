"""A domain's life over the bus on each real hypervisor: real broker, real processes, the credentials of production."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from orchestrator.bus.nats import NatsBus
from orchestrator.client import Client
from orchestrator.protocol.command import Condition, Result
from orchestrator.protocol.error import Conflict, DeadlineExceeded, HypervisorRefused, NotFound, Unsupported
from tests.e2e import audit
from tests.e2e.fleet import SUBJECTS, Fleet, everything
from tests.e2e.places import PLACES, Place
from tests.hypervisors import no_containers, unavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hypervisor,
    pytest.mark.skipif(unavailable() is not None, reason=f"real hypervisors: {unavailable()}"),
]
JAVASCRIPT = Path(__file__).parent / "js"


@pytest.fixture(params=["test", "embed", "libvirtd-qemu", "remote-qemu", "libvirtd-lxc"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One hypervisor of each kind."""
    if request.param in ("libvirtd-lxc", "several") and (reason := no_containers()):
        pytest.skip(f"containers: {reason}")
    with PLACES[request.param](["n1"]) as place:
        yield place


async def test_a_domains_life(fleet: Fleet, place: Place) -> None:
    """Each verb has its effect, is absolute, and is told; what the hypervisor lacks is refused; at the end nothing is left."""
    async with fleet.client() as bus:
        client = Client(bus, SUBJECTS)
        made = await client.create_xml("web1", place.xml.format(name="web1"))
        assert made.domain is not None
        uuid = made.domain.uuid
        with pytest.raises(Conflict):
            await client.suspend("web1", condition=Condition(state="shutoff"))
        await lived_through(client, uuid, "web1")
        await restarted(bus, client, uuid, await able(client, place.kind))
        if place.kind == "qemu":  # a machine without a guest system obeys nobody: that is told, and it runs on
            with pytest.raises(DeadlineExceeded) as unheard:
                await client.shutdown(uuid, timeout=2)
            assert "unknown" == unheard.value.outcome
            assert "running" == (await client.get(uuid)).state
        else:
            assert ("shutoff", True) == ended(await once_accepted(client, uuid, "shutdown"))
            assert ("running", True) == ended(await client.start(uuid))
        assert (await client.destroy("web1")).changed is True
        assert (await client.undefine("web1")).changed is True
        with pytest.raises(NotFound):
            await client.get(uuid)
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
    audit.check_sequences(events, "n1")
    for told in ("defined", "started", "suspended", "resumed", "stopped", "undefined"):
        assert told in lifecycle(events, uuid)
    await fleet.stop_workers()
    assert place.ask("n1", "list") == {} or place.kind == "test"
    assert "Traceback" not in fleet.logs()


async def lived_through(client: Client, uuid: str, name: str) -> None:
    """Lead a running domain through what every hypervisor can; it runs in the end."""
    for verb, state, changed in (
        ("start", "running", False),
        ("suspend", "paused", True),
        ("resume", "running", True),
        ("destroy", "shutoff", True),
        ("start", "running", True),
        ("set-autostart", "running", True),
    ):
        result = await client.call(uuid, verb)
        assert result.domain is not None
        assert (verb, result.changed, result.domain.state) == (verb, changed, state)
        assert (await client.get(name)).state == state


async def able(client: Client, kind: str) -> list[str]:
    """Return the verbs that the node's hypervisor for a type of domains says it has."""
    (node,) = await client.nodes()
    return next(one.verbs for one in node.hypervisors if kind in one.types)


async def restarted(bus: NatsBus, client: Client, uuid: str, verbs: list[str]) -> None:
    """Reboot and reset a running domain where there is such a verb; where there is none, it is refused before anything happens."""
    for verb in ("reboot", "reset"):
        if verb not in verbs:
            with pytest.raises(Unsupported, match=f"cannot {verb}: libvirt's driver has no vir") as refused:
                await client.call(uuid, verb, id=f"{verb}-{uuid[:8]}")
            assert "none" == refused.value.outcome
            events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
            assert ["virt.v1.command.failed"] == [event["type"] for event in events if event.get("commandid") == f"{verb}-{uuid[:8]}"]
            continue
        assert (await once_accepted(client, uuid, verb)).changed is True
        assert (await client.wait(uuid, state="running", timeout=30)).state == "running"


async def once_accepted(client: Client, uuid: str, verb: str) -> Result:
    """Send a verb; to a container until it is heard, since one that was just started has no first process, or a deaf one."""
    if (await client.get(uuid)).type != "lxc":
        return await client.call(uuid, verb, timeout=5)
    with anyio.fail_after(30):
        while True:
            try:
                return await client.call(uuid, verb, timeout=5)
            except (HypervisorRefused, DeadlineExceeded):
                await anyio.sleep(0.1)


def ended(result: Result) -> tuple[str | None, bool]:
    """Return the state that a command left the domain in, and whether it changed anything."""
    assert result.domain is not None
    return result.domain.state, result.changed is True


def lifecycle(events: list[audit.Told], uuid: str) -> list[str]:
    """Return what was told of a domain's life, in order."""
    return [event["data"]["event"] for event in events if event["type"].startswith("virt.v1.lifecycle.") and event["subject"] == uuid]


@pytest.mark.parametrize("place", ["several"], indirect=True)
async def test_machines_and_containers_live_on_one_node_through_the_same_commands(fleet: Fleet, place: Place) -> None:
    """One worker, three hypervisors: each domain goes to the one that runs its type, and does there what that one can."""
    async with fleet.client() as bus:
        client = Client(bus, SUBJECTS)
        (node,) = await client.nodes()
        assert list(place.uris["n1"]) == [one.uri for one in node.hypervisors]
        for kind, xml in place.xmls.items():
            made = await client.create_xml(f"{kind}1", xml.format(name=f"{kind}1"))
            assert ("running", True) == ended(made)
        for kind, uri in zip(place.xmls, place.uris["n1"], strict=True):
            seen = await client.get(f"{kind}1")
            assert (uri, kind) == (seen.hypervisor, seen.type)
            await lived_through(client, seen.uuid, seen.name)
            await restarted(bus, client, seen.uuid, await able(client, kind))
        with pytest.raises(Unsupported, match="node n1 runs no domains of type 'xen'"):
            await client.create_xml("xen1", "<domain type='xen'><name>xen1</name><memory>8192</memory></domain>", node="n1")
        with pytest.raises(Conflict, match=r"args\.hypervisor"):
            await client.define_xml((await client.get("qemu1")).uuid, place.xmls["qemu"].format(name="qemu1"), hypervisor="lxc")
        assert {"qemu1", "lxc1", "test1"} == {domain.name for domain in await client.domains()}
        for kind in place.xmls:
            assert ("shutoff", True) == ended(await client.destroy(f"{kind}1"))
            assert (await client.undefine(f"{kind}1")).changed is True
        assert [] == await client.domains()
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
    audit.check_sequences(events, "n1")
    assert "Traceback" not in fleet.logs()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_client_in_javascript_written_from_the_contract_alone_agrees(fleet: Fleet, place: Place) -> None:
    """nats.js and the official CloudEvents SDK, by `api`, `cmd` and `run`; it prints each law that is broken."""
    node = shutil.which("node")
    assert node is not None, "Node.js is missing; 'tools/setup node' installs it"
    command = [node, "conformance.mjs", "--server", fleet.broker.url, "--node", "n1", "--type", place.kind, "--root", place.root]
    async with await anyio.open_process(command, cwd=JAVASCRIPT, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = "".join([chunk.decode(errors="replace") async for chunk in process.stdout])
    broken = [line for line in said.splitlines() if line.startswith("not ok")]
    print(said.splitlines()[-1])
    assert [] == broken
    assert process.returncode == 0
