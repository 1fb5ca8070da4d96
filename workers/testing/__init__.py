"""For the tests of people who embed a worker, speak to a fleet, or write a driver. It ships with virtbus.

**A fleet in one line**, all in memory, in time that costs nothing (see `fleet` and `loop`). With pytest, in the topmost `conftest.py`:

    pytest_plugins = ["workers.testing.plugin"]

    @pytest.fixture
    def anyio_backend(virtual_time):
        return virtual_time

and then, with the fixtures `fleet`, `events`, `hypervisor`, `bus` and `broker` (see `plugin`):

    @pytest.mark.anyio
    async def test_web_is_started_again(fleet, events, hypervisor):
        await fleet.client.create_xml("web1", DOMAIN_XML)
        started = await events.expect("lifecycle.started", domain="web1")
        hypervisor.machine.crash(started.subject)
        ...

Without pytest: `async with Fleet() as fleet:` on a `VirtualLoop`, or on any asyncio loop.

A worker of one's own takes part, and lives in virtual time, when it is made of

    Worker(fleet.bus("mine"), node="mine", hypervisors=[hypervisor], journal=MemoryJournal(), lanes=hypervisor.lanes(), clock=wall_clock())

(enter the bus first; `MemoryJournal` is of `workers.journal.memory`); so does a program of one's own that has a client:
`Client(bus, monotonic=anyio.current_time)`.

**The laws of a driver**, for people who write one: subclass `DriverContract`, give it a bench, run pytest.

    from workers.testing import Bench, DriverContract

    class TestMine(DriverContract):
        @pytest.fixture
        def bench(self):
            return Bench(driver=MyDriver("mine:///"), xml=my_smallest_domain)

`xml(name, uuid)` gives the smallest domain that starts there; what else a bench may have stands at `Bench`.
`MemoryDriver` is a driver that keeps every law, `FakeHypervisor` is one that a test steers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from workers.drivers.memory import MemoryDriver
from workers.testing.events import Events
from workers.testing.fleet import DOMAIN_XML, Fleet
from workers.testing.hypervisor import FakeHypervisor
from workers.testing.loop import Deadlock, VirtualLoop, wall_clock

if TYPE_CHECKING:
    from workers.testing.contract import DriverContract
    from workers.testing.stage import Bench, Recorder

_NEED_PYTEST = {"Bench": "stage", "DriverContract": "contract", "Recorder": "stage"}

__all__ = [
    "DOMAIN_XML",
    "Bench",
    "Deadlock",
    "DriverContract",
    "Events",
    "FakeHypervisor",
    "Fleet",
    "MemoryDriver",
    "Recorder",
    "VirtualLoop",
    "wall_clock",
]


def __getattr__(name: str) -> object:
    """Import what needs pytest when it is asked for: a simulation has no use for it."""
    if name not in _NEED_PYTEST:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("workers.testing.contract")  # before `stage`, whose asserts it has rewritten
    return getattr(import_module(f"workers.testing.{_NEED_PYTEST[name]}"), name)
