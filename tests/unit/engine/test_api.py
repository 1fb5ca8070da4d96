"""Commands by `api`: placed, located, answered with their end."""

from __future__ import annotations

import pytest

from tests.unit.engine.world import uuid_of, world, xml

pytestmark = pytest.mark.anyio

ONE = uuid_of(1)


async def test_a_created_domain_can_be_started_and_undefined_by_name() -> None:
    """The main way, from nothing to nothing."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()

        created = await here.api("p", "web1", "define-xml", {"id": "a", "args": {"xml": xml()}})
        started = await here.api("p", "web1", "start", {"id": "b"})
        undefined = await here.api("p", "web1", "undefine", {"id": "c"})

        assert [True] * 3 == [answer["ok"] for answer in (created, started, undefined)], (created, started, undefined)
        assert [("p", "a", "define-xml"), ("p", "b", "start"), ("p", "c", "undefine")] == worker.ran
        assert "n1" == created["node"]
