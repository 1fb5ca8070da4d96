"""A domain that cannot be read is neither gone nor forgotten: it stays whose it was, and is looked at until it can be read again."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.protocol.error import HypervisorRefused
from workers.testing import DOMAIN_XML, FakeHypervisor, Fleet
from workers.testing.plugin import virtual_time

__all__ = ["virtual_time"]

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run these tests in virtual time."""
    return virtual_time


async def test_a_domain_that_can_be_read_again_is_told_without_an_event() -> None:
    """Nothing happens to it meanwhile, and nobody asks for it."""
    hypervisor = FakeHypervisor()
    async with Fleet({"n1": hypervisor}) as fleet:
        uuid = await created(fleet, "default")
        hypervisor.machine.domains[uuid].readable = False
        hypervisor.sever("restarted")
        await shown(fleet, "default", "unknown")
        hypervisor.machine.domains[uuid].readable = True
        await shown(fleet, "default", "running")


async def test_a_domain_that_cannot_be_read_stays_in_its_project() -> None:
    """Also when a worker that starts finds it so: whose it is cannot be read either."""
    hypervisor = FakeHypervisor()
    async with Fleet({"n1": hypervisor}, project="other") as fleet:
        uuid = await created(fleet, "other")
        hypervisor.machine.domains[uuid].readable = False
        await fleet.nodes["n1"].crash()
        await fleet.nodes["n1"].start()
        await shown(fleet, "other", "unknown")
        assert [] == [one.uuid for one in await fleet.client.domains(project="default")]


async def test_what_a_command_may_have_done_is_looked_at() -> None:
    """Where the look that follows its call fails, and no event tells: as with the autostart flag."""
    hypervisor = FakeHypervisor()
    async with Fleet({"n1": hypervisor}) as fleet:
        uuid = await created(fleet, "default")
        hypervisor.refuse("look")
        with pytest.raises(HypervisorRefused) as raised:
            await fleet.client.set_autostart(uuid, enabled=True)
        assert "unknown" == raised.value.outcome
        await anyio.sleep(1)
        assert [True] == [domain.autostart for domain in await fleet.client.domains()]


async def shown(fleet: Fleet, project: str, state: str) -> None:
    """Wait until the only domain of a project is told to be in a state."""
    with anyio.fail_after(60):
        while [state] != [domain.state for domain in await fleet.client.domains(project=project)]:
            await anyio.sleep(0.1)


async def created(fleet: Fleet, project: str) -> str:
    """Return the UUID of a running domain."""
    domain = (await fleet.client.create_xml("web1", DOMAIN_XML, project=project)).domain
    assert domain is not None
    return domain.uuid
