"""Jobs on a real QEMU: how far a save is, is told, a cancel gives it up, and a worker that is killed meanwhile loses nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import libvirt
import pytest

from orchestrator.client import Client
from orchestrator.event import CommandProgress
from orchestrator.protocol.event import TERMINAL, Event
from tests.e2e import audit
from tests.e2e.fleet import SUBJECTS, Fleet, everything
from tests.hypervisors import Libvirtd, lasting_xml, private_libvirtd, unavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hypervisor,
    pytest.mark.slow,
    pytest.mark.skipif(unavailable() is not None, reason=f"real hypervisors: {unavailable()}"),
]

UUID = str(uuid4())


@pytest.fixture
def libvirtd() -> Iterator[Libvirtd]:
    """One libvirtd with QEMU."""
    with private_libvirtd("qemu") as daemon:
        yield daemon


@pytest.fixture
async def fleet(libvirtd: Libvirtd, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Broker, coordinator and one worker."""
    fleet = Fleet(tmp_path, {"n1": [libvirtd.uri("qemu")]})
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.stop()


def truth(libvirtd: Libvirtd) -> tuple[bool, bool]:
    """Return whether the domain runs and whether it has an image, as libvirt itself says."""
    with libvirtd.held("qemu") as connection:
        domain = connection.lookupByUUIDString(UUID)
        return domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING, bool(domain.hasManagedSaveImage())


async def followed(client: Client, id: str, names: set[str] | frozenset[str], count: int = 1) -> list[Event]:
    """Return all events of a command up to the `count`th of those `names`."""
    told = []
    with anyio.fail_after(90):
        async for event in client.events(every=True, after=0):
            if event.commandid == id and event.name.startswith("command."):
                told.append(event)
                count -= event.name in names
                if not count:
                    return told
    raise AssertionError(told)


def check_progress(told: list[Event], least: int) -> None:
    """Hold the events of one job to what is promised of them."""
    progress = [event for event in told if isinstance(event, CommandProgress)]
    assert len(progress) >= least, told
    assert ["command.accepted", "command.started"] == [event.name for event in told[:2]]
    for event in progress:
        assert (True, "bytes") == (0 <= event.percent <= 100, event.data["unit"])
        assert event.total >= event.remaining >= 0
    figures = [(event.processed, event.remaining) for event in progress]
    assert len(set(figures)) == len(figures), "told without a change"
    assert sorted(event.processed for event in progress) == [event.processed for event in progress]


async def made(client: Client, xml: str) -> None:
    """Have the domain run."""
    assert (await client.create_xml(UUID, xml)).changed


async def remade(client: Client, xml: str) -> None:
    """Have another one in its place."""
    await client.destroy(UUID)
    await client.undefine(UUID)
    await made(client, xml)


async def test_a_save_of_a_real_machine_is_told_cancelled_and_done(fleet: Fleet, libvirtd: Libvirtd, tmp_path: Path) -> None:
    """First it is given up half way and the machine runs on; then it is let finish, and a start goes on from the image."""
    async with fleet.client() as bus:
        client = Client(bus, SUBJECTS)
        await made(client, lasting_xml("slow", UUID, folder=tmp_path, mib=40))
        await client.post(UUID, "managed-save", id="s1")
        check_progress(await followed(client, "s1", {"command.progress"}, 2), 2)
        assert ("paused", "save") == await _seen(client)
        cancelled = await client.cancel("s1")
        assert (True, {"id": "s1", "state": "cancelled"}) == (cancelled.changed, cancelled.result)
        end = (await followed(client, "s1", TERMINAL))[-1]
        assert isinstance(end.data, dict)
        assert ("command.cancelled", "none", {"cancelled_by": cancelled.id}) == (end.name, end.data["error"]["outcome"], end.data["result"])
        await client.wait(UUID, state="running", timeout=30)
        assert (True, False) == truth(libvirtd)
        await remade(client, lasting_xml("slow", UUID, folder=tmp_path, mib=4))
        await client.post(UUID, "managed-save", id="s2")
        check_progress(await followed(client, "s2", TERMINAL), 1)
        assert ("shutoff", "saved", True) == (*await _seen(client), (await client.get(UUID)).saved)
        assert (False, True) == truth(libvirtd)
        assert not (await client.managed_save(UUID)).changed
        await client.start(UUID)
        assert (True, False) == truth(libvirtd)
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
    audit.check_sequences(events, "n1")
    assert 2 == fleet.calls()["managed-save", UUID]
    assert "Traceback" not in fleet.logs()


async def test_a_save_outlives_its_worker(fleet: Fleet, libvirtd: Libvirtd, tmp_path: Path) -> None:
    """Killed in the middle of it, the worker waits for what the daemon makes of it, can have it given up, and asks for nothing twice."""
    async with fleet.client() as bus:
        client = Client(bus, SUBJECTS)
        await made(client, lasting_xml("slow", UUID, folder=tmp_path, mib=40))
        for id, running in (("s1", True), ("s2", False)):
            await client.post(UUID, "managed-save", id=id)
            await followed(client, id, {"command.progress"})
            await fleet.kill_and_restart("n1")
            if running:
                assert (await client.cancel(id)).changed
            end = (await followed(client, id, TERMINAL))[-1]
            assert ("command.cancelled" if running else "command.succeeded") == end.name
            assert (running, not running) == truth(libvirtd)
            if running:
                await remade(client, lasting_xml("slow", UUID, folder=tmp_path, mib=8))
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
    audit.check_sequences(events, "n1")
    assert [1, 1] == [len(audit.ends(events)[id]) for id in ("s1", "s2")]
    assert 2 == fleet.calls()["managed-save", UUID]


async def _seen(client: Client) -> tuple[Any, Any]:
    seen = await client.get(UUID)
    return seen.state, seen.reason
