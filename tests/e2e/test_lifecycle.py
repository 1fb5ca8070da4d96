"""A domain's life over the bus on each real hypervisor: real broker, real processes, the credentials of production."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from orchestrator.client import Client
from orchestrator.protocol.error import Conflict, NotFound
from tests.e2e import audit
from tests.e2e.fleet import SUBJECTS, Fleet, everything
from tests.e2e.places import PLACES, Place
from tests.hypervisors import unavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hypervisor,
    pytest.mark.skipif(unavailable() is not None, reason=f"real hypervisors: {unavailable()}"),
]
JAVASCRIPT = Path(__file__).parent / "js"


@pytest.fixture(params=["test", "embed", "libvirtd-qemu"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One hypervisor of each kind."""
    with PLACES[request.param](["n1"]) as place:
        yield place


@pytest.fixture
async def fleet(place: Place, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Broker, coordinator and one worker."""
    fleet = Fleet(tmp_path, place.uris)
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.stop()


async def test_a_domains_life(fleet: Fleet, place: Place) -> None:
    """Each verb has its effect, is absolute, and is told; at the end nothing is left."""
    async with fleet.client() as bus:
        client = Client(bus, SUBJECTS)
        made = await client.call("default", "web1", "create-xml", {"xml": place.xml.format(name="web1")})
        assert made.domain is not None
        uuid = made.domain.uuid
        with pytest.raises(Conflict):
            await client.call("default", "web1", "suspend", condition={"state": "shutoff"})  # type: ignore[arg-type]
        for verb, state, changed in (
            ("start", "running", False),
            ("suspend", "paused", True),
            ("resume", "running", True),
            ("destroy", "shutoff", True),
            ("start", "running", True),
            ("set-autostart", "running", True),
            ("destroy", "shutoff", True),
        ):
            result = await client.call("default", uuid, verb)
            assert result.domain is not None
            assert (verb, result.changed, result.domain.state) == (verb, changed, state)
            assert (await client.get("default", "web1")).state == state
        assert (await client.call("default", "web1", "undefine")).changed is True
        with pytest.raises(NotFound):
            await client.get("default", uuid)
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
    audit.check_sequences(events, "n1")
    lived = [event["data"]["event"] for event in events if event["type"].startswith("virt.v1.lifecycle.") and event["subject"] == uuid]
    for told in ("defined", "started", "suspended", "resumed", "stopped", "undefined"):
        assert told in lived
    await fleet.stop_workers()
    assert place.ask("n1", "list") == {} or place.kind == "test"
    assert "Traceback" not in fleet.logs()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_client_in_javascript_written_from_the_contract_alone_agrees(fleet: Fleet, place: Place) -> None:
    """nats.js and the official CloudEvents SDK, by `api`, `cmd` and `run`; it prints each law that is broken."""
    node = shutil.which("node")
    assert node is not None, "Node.js is missing; 'tools/setup node' installs it"
    command = [node, "conformance.mjs", "--server", fleet.broker.url, "--node", "n1", "--type", place.kind]
    async with await anyio.open_process(command, cwd=JAVASCRIPT, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = "".join([chunk.decode(errors="replace") async for chunk in process.stdout])
    broken = [line for line in said.splitlines() if line.startswith("not ok")]
    print(said.splitlines()[-1])
    assert [] == broken
    assert process.returncode == 0
