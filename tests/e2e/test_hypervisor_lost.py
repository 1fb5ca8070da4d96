"""One of a node's hypervisors dies, really: the node, its lease and its other hypervisor go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from orchestrator.client import Client
from orchestrator.event import NodeDegraded
from orchestrator.protocol.error import DeadlineExceeded
from tests.e2e.fleet import SUBJECTS, Fleet
from tests.e2e.places import LXC, QEMU
from tests.hypervisors import Libvirtd, no_containers, private_libvirtd

pytestmark = [pytest.mark.anyio, pytest.mark.hypervisor, pytest.mark.slow]


@pytest.fixture
def daemons() -> Iterator[tuple[Libvirtd, Libvirtd]]:
    """One libvirtd for machines, reached as if it were on another host, and one for containers."""
    reason = no_containers()
    if reason is not None:
        pytest.skip(f"containers: {reason}")
    with private_libvirtd("qemu", listening=True) as machines, private_libvirtd("lxc") as containers:
        yield machines, containers


async def test_a_killed_libvirtd_takes_no_other_hypervisor_with_it(daemons: tuple[Libvirtd, Libvirtd], tmp_path: Path) -> None:
    """The remote one is killed: it is told, the node stays online, containers obey, and machines do again when it is back."""
    machines, containers = daemons
    far, near = machines.remote_uri("qemu"), containers.uri("lxc")
    fleet = Fleet(tmp_path, {"n1": [far, near]})
    await fleet.start()
    try:
        async with fleet.client() as bus:
            client = Client(bus, SUBJECTS)
            await client.create_xml("machine", QEMU.format(name="machine"))
            await client.create_xml("box", LXC.replace("{root}", str(containers.root)).format(name="box"))
            await anyio.to_thread.run_sync(machines.kill)
            lost = await degraded(client, far, connected=False)
            assert ([far], True) == (lost.lost, bool(lost.reason))
            assert (await client.suspend("box")).changed is True
            with pytest.raises(DeadlineExceeded):
                await client.suspend("machine", timeout=1)
            await anyio.sleep(16)  # longer than a lease lasts without renewal
            assert (await client.resume("box")).changed is True
            (node,) = await client.nodes()
            assert {far: False, near: True} == {one.uri: one.connected for one in node.hypervisors}
            await anyio.to_thread.run_sync(machines.start)
            assert [] == (await degraded(client, far, connected=True)).lost
            assert (await client.suspend("machine")).changed is True
            for name in ("machine", "box"):
                await client.destroy(name)
                await client.undefine(name)
    finally:
        await fleet.stop()
    assert "Traceback" not in fleet.logs()


async def degraded(client: Client, uri: str, *, connected: bool) -> NodeDegraded:
    """Wait until it is told of a hypervisor."""
    with anyio.fail_after(30):
        async for event in client.events(every=True, kinds=("node.degraded",), since=0.0):
            match event:
                case NodeDegraded(hypervisor=told) if told == uri and event.connected is connected:
                    return event
    raise AssertionError  # a feed has no end
