"""Laws of cancelling at one node: what has not begun never does, what has begun is left alone, each command has one end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from orchestrator.bus.port import Message
from tests.unit.worker.world import NODE, WEB1, WEB2, World, ends, kinds, world
from workers.drivers.memory import Fault
from workers.drivers.port import Lost
from workers.engine.intake import Intake
from workers.journal.memory import MemoryJournal
from workers.journal.port import Change
from workers.worker import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield made


async def cancel(node: World, target: str, id: str, uuid: str = WEB1, **more: Any) -> dict[str, Any]:
    """Cancel a command and return the cancel's end."""
    await node.send("cancel", uuid, body={"id": id, "args": {"id": target}}, **more)
    return await node.ended(id)


@asynccontextmanager
async def held(node: World) -> AsyncIterator[Fault]:
    """Hold the domain with a command `busy` that has begun, and behind it `t`; at the end both have ended."""
    fault = node.driver.faults.hang("suspend")
    await node.send("suspend", body={"id": "busy"})
    await anyio.to_thread.run_sync(fault.entered.wait)
    await node.send("destroy", body={"id": "t"})
    try:
        yield fault
    finally:
        fault.release()
    for id in ("busy", "t"):
        await node.ended(id)


async def test_a_queued_command_that_is_cancelled_never_begins(node: World) -> None:
    """Its end comes first, then that of the cancel; who waits for either hears of it; what is behind goes on."""
    async with node.worker(), node.results() as result:
        await node.create()
        async with held(node):
            await node.send("set-autostart", body={"id": "next"})
            done = await cancel(node, "t", "c")
            gone = json.loads((await result("t")).body)
            assert json.loads((await result("c")).body) == done
        assert (await node.ended("next"))["ok"]
        assert (done["ok"], done["changed"], done["verb"], done["result"]) == (True, True, "cancel", {"id": "t", "state": "cancelled"})
        assert (gone["ok"], gone["error"]["code"], gone["error"]["outcome"]) == (False, "cancelled", "none")
        events = await node.events()
        assert [len(ends(events, id)) for id in ("t", "c")] == [1, 1]
        assert kinds(events)[4:6] == ["command.cancelled", "command.succeeded"]
        assert ends(events, "t")[0]["data"] == gone
        assert ("destroy", WEB1) not in node.driver.calls


async def test_a_command_that_has_begun_is_not_cancelled(node: World) -> None:
    """It ends as it would have."""
    async with node.worker():
        await node.create()
        async with held(node):
            refused = await cancel(node, "busy", "c")
        assert (refused["error"]["code"], refused["error"]["outcome"], refused["error"]["retryable"]) == ("conflict", "none", False)
        assert refused["result"] == {"id": "busy", "state": "begun"}
        assert (await node.ended("busy"))["ok"]


async def test_of_what_has_ended_the_cancel_tells_how(node: World) -> None:
    """To have been cancelled before is what was wanted; any other end is a conflict."""
    async with node.worker():
        await node.create()
        async with held(node):
            await cancel(node, "t", "c1")
            again = await cancel(node, "t", "c2")
        done = await node.ended("busy")
        late = await cancel(node, "busy", "c3")
        assert (again["ok"], again["changed"], again["result"]) == (True, False, {"id": "t", "state": "cancelled"})
        assert late["error"]["code"] == "conflict"
        assert late["result"] == {"id": "busy", "state": "succeeded", "recorded": done}


async def test_what_is_not_a_command_of_this_domain_is_not_found(node: World) -> None:
    """Nor one of another project; and what is no cancel is invalid."""
    async with node.worker():
        await node.create()
        await node.create(WEB2, "web2")
        async with held(node):
            answers = [
                await cancel(node, "nobody", "c1"),
                await cancel(node, "t", "c2", WEB2),
                await cancel(node, "t", "c3", project="other"),
            ]
            await node.send("cancel", body={"id": "c4", "args": {"id": "t"}, "if": {"state": "running"}})
            answers.append(await node.ended("c4"))
            await node.send("cancel", body={"id": "c5"})
            answers.append(await node.ended("c5"))
        assert [answer["error"]["code"] for answer in answers] == ["not_found"] * 3 + ["invalid"] * 2
        assert (await node.ended("t"))["ok"]


async def test_a_cancel_repeated_has_no_second_effect(node: World) -> None:
    """It is answered with the first outcome, also after a restart."""
    async with node.results() as result:
        async with node.worker():
            await node.create()
            async with held(node):
                await cancel(node, "t", "c")
                first = await result("c")
                await node.send("cancel", body={"id": "c", "args": {"id": "t"}})
                assert (await result("c")).body == first.body
        async with node.worker():
            await result("c")  # said again after the start
            await node.send("cancel", body={"id": "c", "args": {"id": "t"}})
            assert (await result("c")).body == first.body
            events = await node.events()
            assert [len(ends(events, id)) for id in ("t", "c")] == [1, 1]


async def test_a_cancel_that_comes_too_late_for_itself_expires(node: World) -> None:
    """Nothing is done."""
    async with node.worker():
        await node.create()
        async with held(node):
            expired = await cancel(node, "t", "c", Virt_Deadline="2000-01-01T00:00:00Z")
        assert (expired["error"]["code"], expired["error"]["outcome"]) == ("deadline", "none")
        assert (await node.ended("t"))["ok"]


async def test_a_cancel_cannot_be_cancelled(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while it waits."""
    async with node.worker():

        async def unread(self: Intake, session: int) -> int:
            self._missed = False
            return session

        monkeypatch.setattr(Intake, "_caught_up", unread)
        await node.send("cancel", body={"id": "c1", "args": {"id": "nobody"}})
        refused = await cancel(node, "c1", "c2")
        assert (refused["error"]["code"], refused["result"]) == ("conflict", {"id": "c1", "state": "begun"})


async def test_a_command_that_waits_for_its_hypervisor_can_be_cancelled(node: World) -> None:
    """It is at the head of its queue and has not begun."""
    async with node.worker():
        await node.create()
    for _ in range(100):
        node.driver.faults.fail(Lost("away"), "open")
    async with node.worker():
        await node.send("destroy", body={"id": "t"})
        assert (await cancel(node, "t", "c"))["changed"]
        assert kinds(await node.events())[-2:] == ["command.cancelled", "command.succeeded"]
    assert ("destroy", WEB1) not in node.driver.calls


async def test_a_command_whose_push_was_missed_is_found_before_it_is_called_unknown(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log decides, and is read at once."""
    push = Intake._push

    def deaf(self: Intake, message: Message) -> None:
        if not message.subject.endswith(".destroy"):
            push(self, message)

    monkeypatch.setattr(Intake, "_push", deaf)
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "busy"})
        await anyio.to_thread.run_sync(fault.entered.wait)
        await node.send("destroy", body={"id": "t"})
        with anyio.fail_after(3):
            done = await cancel(node, "t", "c")
        fault.release()
        assert (done["ok"], done["changed"]) == (True, True)
        assert (await node.ended("busy"))["ok"]
        assert ("destroy", WEB1) not in node.driver.calls


async def test_a_full_node_still_takes_cancels(node: World) -> None:
    """That is where one wants to."""
    async with node.worker():
        await node.create()
        async with held(node):
            for number in range(1_001):
                await node.send("resume", body={"id": f"r{number}"})
            assert (await node.ended("r1000"))["error"]["code"] == "busy"
            assert (await cancel(node, "r0", "c"))["changed"]
            for number in range(1, 998):
                await node.send("cancel", body={"args": {"id": f"r{number}"}})
            await node.ended("r997")


class Mortal(MemoryJournal):
    """A journal whose worker is killed at commit number `at`, before it or after."""

    def __init__(self, node: World, *, at: int, after: bool) -> None:
        super().__init__(node.disk)
        self.life = anyio.CancelScope()
        self.died = anyio.Event()
        self._commits = 0
        self._at = at
        self._after = after

    async def commit(self, *changes: Change) -> None:
        """Write, unless this is the one."""
        self._commits += 1
        if self._commits == self._at:
            if self._after:
                await super().commit(*changes)
            self.disk.crash()
            self.died.set()
            self.life.cancel()
        if self.died.is_set():
            await anyio.sleep_forever()
        await super().commit(*changes)


@asynccontextmanager
async def mortal(node: World, *, at: int, after: bool) -> AsyncIterator[anyio.Event]:
    """Run a worker that is killed at a commit; the value tells that it was."""
    journal = Mortal(node, at=at, after=after)

    async def live(*, task_status: TaskStatus[None]) -> None:
        with journal.life:
            async with Worker(node.bus, node=NODE, hypervisors=[node.driver], journal=journal) as worker:
                await worker.run(task_status=task_status)
        journal.died.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(live, task_status=anyio.TASK_STATUS_IGNORED))
        yield journal.died
        tasks.cancel_scope.cancel()
    node.disk.crash()


async def told(node: World, *ids: str) -> bool:
    """Tell whether commands have ended."""
    events = await node.events()
    return all(ends(events, id) for id in ids)


async def either(died: anyio.Event, holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the worker is dead, or what is asked holds."""
    with anyio.fail_after(10):
        while not died.is_set() and not await holds():
            await anyio.sleep(0.002)


@pytest.mark.parametrize("racing", [False, True])
@pytest.mark.parametrize("after", [False, True])
async def test_target_and_cancel_have_one_end_each_wherever_the_worker_is_killed(after: bool, racing: bool) -> None:
    """Each commit is in turn the one at which it happens. `racing`: nothing holds the target up, so either may win."""
    at, happened = 0, True
    while happened:
        at += 1
        async with world() as node:
            async with node.worker():
                await node.create()
            calls = len(node.driver.calls)
            fault = None if racing else node.driver.faults.hang("suspend")
            async with mortal(node, at=at, after=after) as died:
                await node.send("suspend", body={"id": "busy"})
                await node.send("destroy", body={"id": "t"})
                await node.send("cancel", body={"id": "c", "args": {"id": "t"}})
                await either(died, partial(told, node, "t", "c"))
                if fault is not None:
                    fault.release()
                await either(died, partial(told, node, "busy"))
                happened = died.is_set()
            if fault is not None:
                fault.release()
            async with node.worker():
                gone, done = await node.ended("t"), await node.ended("c")
                await node.ended("busy")
                events = await node.events()
            where = f"commit {at}, after {after}"
            assert [len(ends(events, id)) for id in ("busy", "t", "c")] == [1, 1, 1], where
            assert done["ok"] == (gone.get("error", {}).get("code") == "cancelled"), where
            assert done.get("changed", False) == done["ok"], f"both ends are one commit ({where})"
            ran = ("destroy", WEB1) in node.driver.calls[calls:]
            assert not (ran and done["ok"]), f"a cancelled command has no effect ({where})"
            assert done["ok"] or done["error"]["code"] == "conflict", where
    assert at > 6, "there are many commits at which it was tried"
