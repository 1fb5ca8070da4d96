"""The fixtures that embedders use, used here as they use them."""

from __future__ import annotations

from typing import Any

import pytest

from workers.testing.plugin import broker, bus, events, fleet, hypervisor, pytest_pyfunc_call, virtual_time

__all__ = ["broker", "bus", "events", "fleet", "hypervisor", "pytest_pyfunc_call", "virtual_time"]


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run async tests in virtual time."""
    return virtual_time
