"""Several coordinators, or one after another: a command that is sent again has one end, whichever of them is asked."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.bus.memory import MemoryBus
from orchestrator.bus.port import Expect, Outgoing, Stale, Uncertain
from orchestrator.engine.announcer import Announcer
from tests.unit.engine.world import SUBJECTS, Running, World, uuid_of, world, xml

pytestmark = pytest.mark.anyio

ONE = uuid_of(1)


async def several(here: World, *names: str) -> list[Running]:
    """Start coordinators of these names."""
    return [await here.coordinator(name) for name in names]


async def test_ids_asked_of_two_coordinators_at_once_have_one_end_each() -> None:
    """Neither knows what the other does; what is stored first is what happened, and both say so."""
    async with world() as here:
        await here.worker("n1")
        await several(here, "c1", "c2", "c3")
        answers: dict[str, list[Any]] = {}

        async def ask(id: str) -> None:
            answers.setdefault(id, []).append(await here.api("p", "nobody", "start", {"id": id}))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                for _ in range(3):
                    tasks.start_soon(ask, f"k{number}")
        assert {("p", f"k{number}"): ["command.failed"] for number in range(20)} == await here.terminals()
        told = {event.commandid: event.data for event in await here.events()}
        for id, given in answers.items():
            assert [told[id]] * 3 == given


async def test_what_lies_in_a_nodes_log_is_not_ended_by_the_coordinator_that_is_asked_again() -> None:
    """The first was killed while the node took its time; the second knows nothing, and its time is up before its turn comes."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        worker.gate["start"] = anyio.Event()
        [first] = await several(here, "c1")
        assert (await here.api("p", ONE, "start", {"id": "k1", "timeout_s": 0.05}))["final"] is False
        await first.kill()
        await several(here, "c2")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.api, "p", ONE, "define-xml", {"id": "k2", "args": {"xml": xml("web1")}})
            await here.until(lambda: len(worker.received) == 2)
            assert (await here.api("p", ONE, "start", {"id": "k1", "timeout_s": 0.05}))["final"] is False
            worker.gate["start"].set()
        assert {("p", "k1"): ["command.succeeded"], ("p", "k2"): ["command.succeeded"]} == await here.terminals()
        assert (await here.api("p", ONE, "start", {"id": "k1", "timeout_s": 0.05}))["ok"] is True


async def test_what_one_coordinator_ended_the_next_one_does_not_route() -> None:
    """The domain has come to be meanwhile; a repeat is told how the first ended all the same."""
    async with world() as here:
        worker = await here.worker("n1")
        [first] = await several(here, "c1")
        before = await here.api("p", "web1", "start", {"id": "k1"})
        await first.kill()
        await worker.show("p", ONE, "web1")
        await several(here, "c2")
        assert before == await here.api("p", "web1", "start", {"id": "k1"})
        assert [] == worker.ran
        assert {("p", "k1"): ["command.failed"]} == await here.terminals()


async def test_what_a_silent_node_ended_of_a_name_that_means_nothing_any_more_is_found_in_its_events() -> None:
    """The repeat cannot be placed, and the node's ledger cannot be asked."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        [first] = await several(here, "c1")
        before = await here.api("p", "web1", "start", {"id": "k1"})
        await first.kill()
        await worker.hide(ONE)
        await here.bucket("owners").remove(ONE)
        await worker.leave()
        here.broker.cut(worker.bus)
        await several(here, "c2")
        assert before == await here.api("p", "web1", "start", {"id": "k1"})
        assert {("p", "k1"): ["command.succeeded"]} == await here.terminals()


async def test_what_others_ended_while_a_coordinator_was_cut_off_it_does_not_store_when_it_is_back() -> None:
    """It had tried to, and nobody else could know."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        bus, tried, mended = MemoryBus(here.broker, name="c1"), anyio.Event(), anyio.Event()
        store = bus.append

        async def append(message: Outgoing, expect: Expect | None = None) -> int:
            if message.subject.startswith("virt.v1.run.") and not mended.is_set():
                tried.set()
                await mended.wait()
                raise Uncertain("cut off")
            return await store(message, expect)

        bus.append = append  # type: ignore[method-assign]
        await here.coordinator("c1", bus=bus)
        answers = []

        async def ask() -> None:
            answers.append(await here.api("p", ONE, "start", {"id": "k1"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await tried.wait()
            error = {"code": "not_found", "message": "gone", "retryable": False, "outcome": "none"}
            said = {"id": "k1", "verb": "start", "ok": False, "node": "_", "project": "p", "error": error, "duration_ms": 1.0}
            await Announcers(here).other.tell("command.failed", said, project="p", domain=ONE, commandid="k1")
            mended.set()
        assert [said] == answers
        assert [] == worker.received
        assert {("p", "k1"): ["command.failed"]} == await here.terminals()


class Announcers:
    """Two coordinators' own events, and what the log holds of a domain."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.one, self.other = (self._announcer(name) for name in ("c1", "c2"))

    def _announcer(self, name: str) -> Announcer:
        return Announcer(self.here.bus, SUBJECTS, name, clock=lambda: 1000.0, randomness=lambda count: name.encode().ljust(count, b"x"))

    async def end(self, announcer: Announcer, id: str, fence: int) -> int:
        """End a command of the domain."""
        return await announcer.tell("command.failed", {"id": id}, project="p", domain=ONE, commandid=id, fence=fence)


async def test_an_end_is_refused_where_another_coordinator_has_ended_something_since_it_was_looked() -> None:
    """It may be the same command; nothing is stored, and the numbers go on without a hole."""
    async with world() as here:
        both = Announcers(here)
        fence = await both.one.last("p", ONE)
        await both.end(both.other, "k1", fence)
        with pytest.raises(Stale):
            await both.end(both.one, "k1", fence)
        await both.end(both.one, "k2", await both.one.last("p", ONE))
        assert [("k1", "1"), ("k2", "1")] == [(event.commandid, event.sequence.lstrip("0")) for event in await here.events()]


async def test_ends_of_ones_own_do_not_stand_in_each_others_way() -> None:
    """Many that were looked up at the same time are ended one after the other, as long as nobody else ends any."""
    async with world() as here:
        both = Announcers(here)
        fence = await both.one.last("p", ONE)
        for number in range(3):
            await both.end(both.one, f"k{number}", fence)
        await both.end(both.other, "x", await both.other.last("p", ONE))
        with pytest.raises(Stale):
            await both.end(both.one, "k3", fence)
