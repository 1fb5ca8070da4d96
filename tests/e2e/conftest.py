"""What the tests on whole systems share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.places import Place


@pytest.fixture
async def fleet(place: Place, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Run broker, coordinator and a worker for each node of the test's `place`: real processes, under the credentials of production."""
    fleet = Fleet(tmp_path, place.uris)
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.stop()
