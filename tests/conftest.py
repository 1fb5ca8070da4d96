"""What all tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on anyio's asyncio backend, the only one that the bus supports."""
    return "asyncio"
