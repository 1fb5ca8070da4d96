"""The coordinator's own events."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from orchestrator.engine.announcer import Announcer
from tests.unit.engine.mortal import WAYS, MortalBus
from tests.unit.engine.world import SUBJECTS, World, world

pytestmark = pytest.mark.anyio


def announcer(bus: MortalBus) -> Announcer:
    """Return one whose clock stands still."""
    return Announcer(bus, SUBJECTS, "c1", clock=lambda: 1000.0, randomness=bytes)


def mortal(here: World, at: int = 0, way: str = "cut after") -> MortalBus:
    """Return a bus whose connection breaks at one exchange."""
    return MortalBus(here.broker, at=at, way=next(each for each in WAYS if each == way))


async def test_events_have_numbers_and_know_their_predecessors() -> None:
    """Of the same domain, in the epoch of the process."""
    async with world() as here:
        async with mortal(here) as bus:
            await bus.link.up()
            told = announcer(bus)
            for domain in ("u1", "u2", "u1"):
                await told.tell("health.slow-call", {}, project="p", domain=domain)
        events = await here.events()
        assert [("1", "0"), ("2", "0"), ("3", "1")] == [(event.sequence.lstrip("0"), event.previous.lstrip("0") or "0") for event in events]
        assert {told.epoch} == {event.epoch for event in events}
        assert [f"_.{told.epoch}.{number:016d}" for number in (1, 2, 3)] == [event.id for event in events]


@pytest.mark.parametrize("way", ["cut before", "cut after"])
@pytest.mark.parametrize("forgets", [False, True])
async def test_each_event_is_stored_once_whatever_becomes_of_the_answer(way: str, forgets: bool) -> None:
    """Also where the broker forgot which ids it has."""
    async with world() as here:
        async with mortal(here, at=2, way=way) as bus:
            await bus.link.up()
            told = announcer(bus)
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    tasks.start_soon(told.tell, f"health.slow-call.{number}", {})
                if forgets:
                    await here.until(lambda: bus.exchanges >= 2)
                    await anyio.lowlevel.checkpoint()
                    here.broker.stop()
                    here.broker.start()
                    await here.bus.link.up()
        assert [f"health.slow-call.{number}" for number in range(3)] == [event.name for event in await here.events()]


async def test_the_number_of_remembered_domains_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one forgotten the chain begins anew."""
    monkeypatch.setattr("orchestrator.engine.announcer._REMEMBERED", 1)
    async with world() as here:
        async with mortal(here) as bus:
            await bus.link.up()
            told = announcer(bus)
            for domain in ("u1", "u2", "u1"):
                await told.tell("health.slow-call", {}, project="p", domain=domain)
        assert ["0" * 16] * 3 == [event.previous for event in await here.events()]
