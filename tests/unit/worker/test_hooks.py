"""Laws of hooks: told in order, bounded, and never in the way of a command."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from orchestrator.protocol.event import Event
from tests.unit.worker.world import WEB1, World, ends, world
from workers.engine import hooks
from workers.engine.hooks import CommandBegins, CommandEnded

pytestmark = pytest.mark.anyio


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield made


async def test_a_hook_hears_the_beginning_then_the_events_in_the_logs_order_then_the_end(node: World) -> None:
    """The beginning comes before anything is asked of the hypervisor; the end after its event was told."""
    told: list[str] = []
    over = anyio.Event()

    def on_event(event: Event) -> None:
        if event.subject == WEB1:
            told.append(event.name)

    async def on_command(value: CommandBegins | CommandEnded) -> None:
        match value:
            case CommandBegins():
                assert node.driver.calls == []
                told.append(f"{value.verb} {value.id} begins")
            case CommandEnded():
                told.append(f"{value.verb} {value.id} ended: {value.result.ok}")
                over.set()

    async with node.worker(on_event=on_event, on_command=on_command):
        created = await node.create()
        with anyio.fail_after(5):
            await over.wait()
    id = created["id"]
    assert told == [
        f"create-xml {id} begins",
        "lifecycle.defined",
        "lifecycle.resumed",
        "lifecycle.started",
        "command.succeeded",
        f"create-xml {id} ended: True",
    ]


async def test_what_never_began_is_told_to_have_ended(node: World) -> None:
    """A refused command has an end and no beginning."""
    told: list[CommandBegins | CommandEnded] = []
    over = anyio.Event()

    def on_command(value: CommandBegins | CommandEnded) -> None:
        told.append(value)
        over.set()

    async with node.worker(on_command=on_command):
        await node.send("bogus", body={"id": "a"})
        with anyio.fail_after(5):
            await over.wait()
    (ended,) = told
    assert isinstance(ended, CommandEnded)
    assert (ended.id, ended.uuid, ended.result.ok) == ("a", WEB1, False)


async def test_a_hook_that_fails_touches_no_command(node: World) -> None:
    """What it raises is logged, and the next thing is told all the same."""
    heard: list[str] = []

    def on_event(event: Event) -> None:
        heard.append(event.name)
        raise ZeroDivisionError

    async def on_command(value: CommandBegins | CommandEnded) -> None:
        heard.append(type(value).__name__)
        raise ZeroDivisionError

    async with node.worker(on_event=on_event, on_command=on_command):
        assert (await node.create())["ok"]
        assert (await node.do("suspend"))["ok"]
        with anyio.fail_after(5):
            while heard.count("CommandEnded") < 2:
                await anyio.sleep(0.01)
    assert heard.count("CommandBegins") == 2


async def test_a_hook_that_hangs_is_left_and_the_command_begins(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its time, and no more."""
    monkeypatch.setattr(hooks, "HOOK_S", 0.05)
    cancelled = anyio.Event()

    async def on_command(value: CommandBegins | CommandEnded) -> None:
        if isinstance(value, CommandBegins):
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.set()

    async with node.worker(on_command=on_command):
        assert (await node.create())["ok"]
        assert cancelled.is_set()


async def test_events_beyond_the_bound_are_left_out_of_the_hook_and_of_nothing_else(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has them all."""
    monkeypatch.setattr(hooks, "MAX_WAITING", 1)
    heard: list[str] = []
    gate = anyio.Event()

    async def on_event(event: Event) -> None:
        heard.append(event.name)
        await gate.wait()

    async with node.worker(on_event=on_event):
        assert (await node.create())["ok"]
        await node.do("suspend", id="a")
        gate.set()
        events = await node.events()
        assert len(ends(events, "a")) == 1
        assert len(heard) < len(events)
