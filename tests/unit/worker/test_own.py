"""Laws of verbs and drivers of one's own, and of how a worker is entered and left."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from orchestrator.bus.port import Unavailable
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.extension import register
from orchestrator.protocol.verb import VERBS, Args, Verb
from tests.unit.worker.world import NODE, WEB1, WEB2, World, ends, world
from workers.drivers import registry
from workers.drivers.memory import MemoryDriver
from workers.drivers.port import Ability, Driver, Impossible, Listener, Sighting, Tag
from workers.journal.memory import MemoryJournal
from workers.journal.port import Locked, Recovery
from workers.worker import Worker

pytestmark = pytest.mark.anyio


class NoteArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A text."""

    text: str


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield made


@pytest.fixture(autouse=True)
def verbs() -> Iterator[None]:
    """Leave the registry as it was."""
    before = dict(VERBS)
    yield
    VERBS.clear()
    VERBS.update(before)


def note(driver: Driver, uuid: str, args: NoteArgs) -> None:
    """Write down what is asked; refuse nonsense."""
    assert isinstance(driver, MemoryDriver)
    if args.text == "impossible":
        raise Impossible("this hypervisor takes no such note")
    driver.calls.append((f"note {args.text}", uuid))
    fault = driver.faults.take("note")
    if fault is not None:
        fault.strike()


async def test_a_function_carries_out_a_verb_of_ones_own(node: World) -> None:
    """With its arguments checked, in the domain's turn, with one end; the node says that it can."""
    register(Verb(name="note", args=NoteArgs, summary="write something down", run=note))
    async with node.worker():
        await node.create()
        assert (await node.do("note", args={"text": "hello"}))["changed"]
        assert (await node.do("note", args={"text": "impossible"}))["error"]["code"] == "unsupported"
        assert (await node.do("note", args={"words": "hello"}))["error"]["code"] == "invalid"
        record = await node.client.last("KV_virt_nodes", f"$KV.virt_nodes.{NODE}")
        assert record is not None
        assert "note" in json.loads(record.body)["hypervisors"][0]["verbs"]
    assert node.driver.calls[1:] == [("note hello", WEB1)]


@pytest.mark.parametrize(
    ("settles", "ok", "outcome"),
    [
        (None, False, "unknown"),
        (lambda args, domain: "applied" if domain.active and args.text else "none", True, None),
        (lambda *_: 1 // 0, False, "unknown"),
    ],
)
async def test_a_verb_of_ones_own_cut_off_in_the_middle_is_settled_by_its_rule(
    node: World, settles: Any, ok: bool, outcome: str | None
) -> None:
    """Without a rule, or with a broken one, nothing can tell; it is never run again."""
    register(Verb(name="note", args=NoteArgs, summary="write something down", run=note, settles=settles))
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("note")
        await node.send("note", body={"id": "a", "args": {"text": "hello"}})
        await anyio.to_thread.run_sync(fault.entered.wait)
    fault.release()
    async with node.worker():
        told = await node.ended("a")
        assert (told["ok"], told.get("error", {}).get("outcome")) == (ok, outcome)
        assert len(ends(await node.events(), "a")) == 1
    assert node.driver.calls[1:] == [("note hello", WEB1)]


class Noting(MemoryDriver):
    """A driver that carries a verb of its own."""

    def open(self, listener: Listener) -> Ability:
        """List it."""
        ability = super().open(listener)
        return msgspec.structs.replace(ability, verbs=[*ability.verbs, "note"])

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Carry it out."""
        if isinstance(args, NoteArgs):
            note(self, uuid, args)
        else:
            super().run(verb, uuid, args, tag)


async def test_a_driver_of_ones_own_carries_out_a_verb_of_ones_own(node: World) -> None:
    """Found by its scheme; a driver that does not list the verb cannot do it."""
    register(Verb(name="note", args=NoteArgs, summary="write something down"))
    async with node.worker():
        await node.create()
        assert (await node.do("note", args={"text": "hello"}))["error"]["code"] == "unsupported"
    made: list[Noting] = []

    def factory(uri: str) -> Driver:
        made.append(Noting(uri))
        return made[-1]

    registry.register("noting", factory)
    async with node.worker(hypervisors=["noting:///here"]):
        await node.create(WEB2, "web2")
        assert (await node.do("note", WEB2, args={"text": "hello"}))["changed"]
    assert [driver.uri for driver in made] == ["noting:///here"]
    assert made[0].calls[-1] == ("note hello", WEB2)


async def test_what_a_package_offers_is_found_by_its_scheme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an entry point; a broken one is named."""
    made = tmp_path / "offering-1.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1\n")
    points = "[virtbus.drivers]\noffered = workers.drivers.memory:MemoryDriver\nbroken = workers.nowhere:Driver\n"
    (made / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(registry.driver_for("offered:///x"), MemoryDriver)
    with pytest.raises(Invalid, match="'broken'"):
        registry.driver_for("broken:///x")


async def test_an_entered_worker_holds_its_journal_and_one_that_is_left_does_not(node: World, tmp_path: Path) -> None:
    """A second one on the same directory is refused before it does anything."""

    def one() -> Worker:
        return Worker(node.bus, node=NODE, hypervisors=[node.driver], data_dir=tmp_path / "n1")

    async with one():
        with pytest.raises(Locked):
            async with one():
                raise AssertionError
    async with one():
        pass


async def test_leaving_ends_a_worker_that_still_runs(node: World) -> None:
    """Whoever runs it; and then it is not ready any more, and cannot run again."""
    before = set(threading.enumerate())
    async with anyio.create_task_group() as tasks:
        async with Worker(node.bus, node=NODE, hypervisors=[node.driver], journal=MemoryJournal(node.disk)) as worker:
            tasks.start_soon(worker.run)
            with anyio.fail_after(10):
                await worker.ready()
        with pytest.raises(Unavailable):
            await worker.ready()
        with pytest.raises(RuntimeError):
            await worker.run()
    assert set(threading.enumerate()) - before == set()


async def test_a_hypervisor_that_opens_after_the_worker_has_left_is_closed_again(node: World) -> None:
    """Nobody else would."""
    closed = threading.Event()

    class Slow(MemoryDriver):
        def close(self) -> None:
            super().close()
            closed.set()

        def scan(self) -> list[Sighting]:
            raise AssertionError

    slow = Slow()
    fault = slow.faults.hang("open")
    worker = Worker(node.bus, node=NODE, hypervisors=[slow], journal=MemoryJournal(node.disk))
    async with worker, anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await anyio.to_thread.run_sync(fault.entered.wait)
        tasks.cancel_scope.cancel()
    closed.clear()
    fault.release()
    assert await anyio.to_thread.run_sync(closed.wait, 5)


async def test_a_worker_needs_one_place_for_its_journal(node: World, tmp_path: Path) -> None:
    """A directory or a journal, not both and not none."""
    for places in ({}, {"data_dir": tmp_path, "journal": MemoryJournal(node.disk)}):
        with pytest.raises(Invalid):
            Worker(node.bus, node=NODE, hypervisors=[node.driver], **places)  # type: ignore[arg-type]


async def test_a_call_that_hangs_is_left_behind_and_told_and_nobody_waits_for_it(node: World) -> None:
    """Its thread is a daemon, and ends with the call."""
    before = set(threading.enumerate())
    with anyio.fail_after(5), capture_logs() as logs:
        async with node.worker():
            await node.create()
            fault = node.driver.faults.hang("suspend")
            await node.send("suspend", body={"id": "a"})
            await anyio.to_thread.run_sync(fault.entered.wait)
    (left,) = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("short")]
    assert left.daemon
    assert [entry["threads"] for entry in logs if entry["event"] == "worker.threads_left"] == [1]
    fault.release()
    await anyio.to_thread.run_sync(left.join)


async def test_a_worker_cancelled_while_its_journal_opens_leaves_it_closed(node: World) -> None:
    """By asyncio's own cancellation, which no scope of anyio shields from."""
    begun, gate = threading.Event(), threading.Event()

    class Slow(MemoryJournal):
        def open(self, now: float) -> Recovery:
            begun.set()
            gate.wait(10)
            return super().open(now)

    async def enter() -> None:
        async with Worker(node.bus, node=NODE, hypervisors=[node.driver], journal=Slow(node.disk)):
            raise AssertionError

    task = asyncio.create_task(enter())
    await anyio.to_thread.run_sync(begun.wait)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, gate.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    async with node.worker():
        pass
