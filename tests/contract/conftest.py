"""Fixtures of the contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from orchestrator.bus.embedded import Embedded
from orchestrator.bus.port import Bus, LogConfig
from tests.contract.systems import BorrowedSystem, MemorySystem, NatsSystem, System
from tests.contract.witness import provisioned


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run a module's tests on one event loop, so that they can share a broker."""
    return "asyncio"


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Embedded]:  # noqa: ARG001  # orders the scopes
    """Give a real broker."""
    async with Embedded(tmp_path_factory.mktemp("nats")) as embedded:
        yield embedded


@pytest.fixture(params=["memory", "nats", "borrowed"])
def system(request: pytest.FixtureRequest, broker: Embedded) -> System:
    """Give each kind of system in turn."""
    if request.param == "memory":
        return MemorySystem()
    return NatsSystem(broker) if request.param == "nats" else BorrowedSystem(broker)


@pytest.fixture
async def bus(system: System) -> AsyncIterator[Bus]:
    """Give a connected bus of the system."""
    async with system.bus() as bus:
        yield bus


@pytest.fixture
async def other(system: System) -> AsyncIterator[Bus]:
    """Give a second connected bus of the system."""
    async with system.bus() as bus:
        yield bus


@pytest.fixture
async def log(system: System, bus: Bus) -> LogConfig:
    """Give a provisioned log that captures all subjects under the test's word."""
    return await provisioned(bus, LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",)))
