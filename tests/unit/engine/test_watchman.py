"""Nodes that fall silent."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.control import lease
from orchestrator.protocol import codec
from tests.unit.engine.world import World, world

pytestmark = pytest.mark.anyio


async def told(here: World) -> list[str]:
    """Return which nodes were told to be offline, in order."""
    found = [event for event in await here.events() if event.name == "node.offline"]
    assert all((event.project, event.node, event.source[:20]) == ("_", "_", "/virt/coordinators/c") for event in found)
    assert all(event.subject == codec.decode(codec.encode(event.data), dict)["node"] for event in found)
    return [event.subject for event in found]


async def test_a_node_whose_lease_ended_is_told_once_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by a later leader not again."""
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    async with world() as here:
        one = await here.worker("n1")
        await here.worker("n2")
        first = await here.coordinator("c1")
        await one.leave()
        await here.until(lambda: told(here))
        await first.stop()
        second = await here.coordinator("c2")
        await here.until(second.leads)
        await anyio.sleep(0.15)
        assert ["n1"] == await told(here)
        await one.renew()
        await anyio.sleep(0.15)
        await one.leave()

        async def twice() -> bool:
            return await told(here) == ["n1", "n1"]

        await here.until(twice)


async def test_in_a_young_session_nobody_is_told_to_be_offline() -> None:
    """After an outage of the broker every lease may look ended."""
    async with world() as here:
        await (await here.worker("n1")).leave()
        await here.coordinator()
        await anyio.sleep(0.2)
        assert [] == await told(here)
