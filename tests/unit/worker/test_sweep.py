"""Laws of state keys over a restart: none outlives its domain, whenever its worker was killed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from orchestrator.store.kv import KeyValue
from tests.unit.worker.world import NODE, SUBJECTS, WEB1, WEB2, World, world

pytestmark = pytest.mark.anyio


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a world."""
    async with world() as made:
        yield made


async def test_a_key_that_a_killed_worker_has_left_goes_and_all_others_stay(node: World) -> None:
    """It was killed between the event that told the domain's end and the removal of its key, or the event went out only now."""
    async with node.worker():
        await node.create()
    bucket = KeyValue(node.client, SUBJECTS.bucket("domains"))
    kept = await bucket.get(f"{NODE}.default.{WEB1}")
    assert kept is not None
    assert kept.value is not None
    await bucket.put(f"{NODE}.default.{WEB2}", kept.value)
    await bucket.put(f"{NODE}.elsewhere.{WEB1}", kept.value)
    await bucket.put(f"other.default.{WEB2}", kept.value)
    async with node.worker():
        with anyio.fail_after(5):
            while await node.state(WEB2) is not None or await node.state(WEB1, project="elsewhere") is not None:
                await anyio.sleep(0.01)
        assert await node.state(WEB1) is not None
        other = await bucket.get(f"other.default.{WEB2}")
        assert other is not None
        assert other.value is not None
