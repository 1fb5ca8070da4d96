"""A pytest plugin: fixtures in memory for people who embed.

Load it in the topmost `conftest.py`: `pytest_plugins = ["workers.testing.plugin"]`.

It is no `pytest11` entry point, which would load it, and all of virtbus, into every pytest of every environment that has virtbus.

The fixtures are for tests that anyio runs (`@pytest.mark.anyio`), in real time or, where `anyio_backend` returns what
`virtual_time` gives, in virtual time; there a test that waits for ever fails at once, with `Deadlock`. Tests of other
plugins, and fleets of another size, enter `workers.testing.Fleet` themselves.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from workers.testing.events import Events
from workers.testing.fleet import Fleet, provision
from workers.testing.hypervisor import FakeHypervisor
from workers.testing.loop import VirtualLoop, wall_clock


@pytest.fixture
def virtual_time() -> tuple[str, dict[str, Any]]:
    """Return what `anyio_backend` must return for tests in virtual time."""
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
async def broker() -> MemoryBroker:
    """Return a broker in memory with the logs and buckets of an installation."""
    broker = MemoryBroker(wall_clock())
    await provision(broker, wall_clock())
    return broker


@pytest.fixture
async def bus(broker: MemoryBroker) -> AsyncIterator[MemoryBus]:
    """Give a connection to `broker`."""
    async with MemoryBus(broker, name="test", clock=wall_clock()) as bus:
        await bus.link.up()
        yield bus


@pytest.fixture
def hypervisor() -> FakeHypervisor:
    """Return a hypervisor to steer; in `fleet` it is that of node `n1`."""
    return FakeHypervisor()


@pytest.fixture
async def fleet(broker: MemoryBroker, hypervisor: FakeHypervisor) -> AsyncIterator[Fleet]:
    """Give a fleet that is ready: nodes `n1` and `n2` and a coordinator on `broker`."""
    async with Fleet({"n1": hypervisor, "n2": FakeHypervisor()}, broker=broker) as fleet:
        yield fleet


@pytest.fixture
def events(fleet: Fleet) -> Events:
    """Return the events of `fleet`, from its first on."""
    return fleet.events


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let a deadlock in virtual time end the test where it waits, so that its fixtures are left in order."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return (yield)
    pyfuncitem.obj = _guarded(test)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


def _guarded(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def guarded(*args: object, **kwargs: object) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            with loop.guard():
                await test(*args, **kwargs)
        else:
            await test(*args, **kwargs)

    return guarded
