"""Laws of commands at one node: one end each, one effect each, through crashes at any step."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
import pytest

from tests.unit.worker.world import NODE, SUBJECTS, WEB1, WEB2, XML, World, ends, kinds, world
from workers.drivers.port import Lost, Rejected

pytestmark = pytest.mark.anyio


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield made


async def test_a_command_is_told_by_its_events_then_its_state_then_its_result(node: World) -> None:
    """Who has the answer can read the state; who reads the terminal event finds the state in it."""
    async with node.worker(), node.results() as result:
        await node.send("create-xml", body={"id": "a", "args": {"xml": XML.format(name="web1")}})
        answer = json.loads((await result("a")).body)
        assert (answer["ok"], answer["changed"], answer["domain"]) == (True, True, {"uuid": WEB1, "name": "web1", "state": "running"})
        state = await node.state()
        assert state is not None
        assert (state["state"], state["project"], state["persistent"], state["node"]) == ("running", "default", True, NODE)
        events = await node.events()
        assert kinds(events) == ["lifecycle.defined", "lifecycle.resumed", "lifecycle.started", "command.succeeded"]
        assert {event["commandid"] for event in events if event["subject"] == WEB1} == {"a"}
        assert ends(events, "a")[0]["data"] == answer
        assert state["incarnation"] == events[-1]["incarnation"]


async def test_the_whole_life_of_a_domain(node: World) -> None:
    """Each verb does what it says, and what holds already changes nothing."""
    async with node.worker():
        await node.create()
        for verb, state, changed in (
            ("suspend", "paused", True),
            ("suspend", "paused", False),
            ("resume", "running", True),
            ("start", "running", False),
            ("destroy", "shutoff", True),
            ("destroy", "shutoff", False),
            ("start", "running", True),
            ("shutdown", "shutoff", True),
        ):
            result = await node.do(verb)
            assert (verb, result["ok"], result["changed"], result["domain"]["state"]) == (verb, True, changed, state)
        assert (await node.do("undefine"))["changed"]
        assert await node.state() is None
        assert not (await node.do("undefine"))["changed"]
        assert (await node.do("start"))["error"]["code"] == "not_found"


async def test_a_change_without_an_event_of_libvirts_is_told_as_state_changed(node: World) -> None:
    """A reader of events alone sees every change."""
    async with node.worker():
        await node.create()
        assert (await node.do("set-autostart"))["changed"]
        events = await node.events()
        assert kinds(events)[-2:] == ["state.changed", "command.succeeded"]
        assert events[-2]["data"]["autostart"] is True
        assert not (await node.do("set-autostart"))["changed"]


async def test_a_repeat_of_an_id_has_no_second_effect_and_the_first_outcome(node: World) -> None:
    """Also after a restart of the worker."""
    async with node.results() as result:
        async with node.worker():
            await node.create()
            await node.send("suspend", body={"id": "a"})
            first = await result("a")
            await node.do("resume")
            await node.send("suspend", body={"id": "a"})
            assert (await result("a")).body == first.body
        async with node.worker():
            await result("a")  # said again after the start
            await node.send("suspend", body={"id": "a"})
            assert (await result("a")).body == first.body
            events = await node.events()
    assert len(ends(events, "a")) == 1
    assert node.driver.calls.count(("suspend", WEB1)) == 1


async def test_an_id_used_for_something_else_is_a_conflict_of_its_own(node: World) -> None:
    """The first command keeps the only end under its id."""
    async with node.worker():
        await node.create()
        await node.do("suspend", id="a")
        sequence = await node.send("resume", body={"id": "a"})
        other = await node.ended(f"m-run-{sequence}")
        assert (other["ok"], other["error"]["code"], other["error"]["outcome"]) == (False, "conflict", "none")
        assert len(ends(await node.events(), "a")) == 1
        assert node.driver.calls[-1] == ("suspend", WEB1)


@pytest.mark.parametrize(
    ("verb", "uuid", "project", "body"),
    [
        ("bogus", WEB1, "default", b"{}"),
        ("start", WEB1, "default", b"{"),
        ("start", WEB1, "default", b'{"bogus":1}'),
        ("start", WEB1, "default", b"\xff\xfe"),
        ("start", "web1", "default", b"{}"),
        ("start", WEB1, "no.project", b"{}"),
        ("start", WEB1, "_", b"{}"),
        ("start.too.long", WEB1, "default", b"{}"),
        ("define-xml", WEB1, "default", b'{"args":{"xml":"<!DOCTYPE a><domain/>"}}'),
        ("define-xml", WEB1, "default", b'{"args":{"xml":"<domain><memory>1</memory></domain>"}}'),
    ],
)
async def test_garbage_ends_as_one_invalid_event_and_the_log_goes_on(node: World, verb: str, uuid: str, project: str, body: bytes) -> None:
    """`_` stands where no valid token is known, and the subject is told as received."""
    async with node.worker():
        await node.create()
        sequence = await node.send(verb, uuid, project=project, body=body)
        told = await node.ended(f"m-run-{sequence}")
        assert told["error"]["code"] == "invalid"
        assert told["subject"] == SUBJECTS.run(NODE, project, uuid, verb)
        assert (await node.do("suspend"))["ok"]


async def test_a_domain_of_another_project_is_not_found(node: World) -> None:
    """And its UUID cannot be taken."""
    async with node.worker():
        await node.create()
        sequence = await node.send("destroy", project="other")
        assert (await node.ended(f"m-run-{sequence}"))["error"]["code"] == "not_found"
        sequence = await node.send("define-xml", project="other", body={"args": {"xml": XML.format(name="x")}})
        assert (await node.ended(f"m-run-{sequence}"))["error"]["code"] == "already_exists"
        state = await node.state()
        assert state is not None
        assert state["state"] == "running"


async def test_a_failed_create_leaves_nothing_behind(node: World) -> None:
    """The hypervisor's message and code are inside."""
    node.driver.faults.fail(Rejected("no memory", code=38, domain=10), "start")
    async with node.worker():
        result = await node.create()
        assert result["error"] == {
            "code": "hypervisor",
            "message": "no memory",
            "retryable": False,
            "outcome": "none",
            "libvirt": {"code": 38, "domain": 10},
        }
        assert node.driver.machine.domains == {}
        assert await node.state() is None
        assert kinds(await node.events()) == ["lifecycle.defined", "lifecycle.undefined", "command.failed"]


@pytest.mark.parametrize(("after", "ok", "outcome"), [(False, False, "none"), (True, True, None)])
async def test_a_worker_killed_while_a_command_runs_settles_it_by_looking(node: World, after: bool, ok: bool, outcome: str | None) -> None:
    """It is never called again: what the hypervisor shows decides."""
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend", after=after)
        await node.send("suspend", body={"id": "a"})
        await node.send("set-autostart", body={"id": "b"})
        await anyio.to_thread.run_sync(fault.entered.wait)
    calls = list(node.driver.calls)
    async with node.worker():
        told = await node.ended("a")
        assert (told["ok"], told.get("error", {}).get("outcome")) == (ok, outcome)
        assert (await node.ended("b"))["ok"], "what waited behind it goes on"
        assert [call for call in node.driver.calls[len(calls) :] if call[0] == "suspend"] == []
    fault.release()
    events = await node.events()
    assert [len(ends(events, identity)) for identity in ("a", "b")] == [1, 1]


async def test_a_command_in_doubt_whose_goal_held_before_it_began_has_changed_nothing(node: World) -> None:
    """Looking cannot tell the two apart; what was observed before can."""
    async with node.worker():
        await node.create()
        await node.do("suspend")
        fault = node.driver.faults.hang("look")
        await node.send("suspend", body={"id": "a"})
        await anyio.to_thread.run_sync(fault.entered.wait)
    fault.release()
    async with node.worker():
        told = await node.ended("a")
        assert (told["ok"], told["changed"]) == (True, False)
    assert node.driver.calls.count(("suspend", WEB1)) == 1


async def test_commands_published_while_the_worker_is_cut_off_run_once_when_it_is_back(node: World) -> None:
    """In the order of the log."""
    async with node.worker():
        await node.create()
        node.broker.cut(node.bus)
        for number, verb in enumerate(("suspend", "resume", "suspend")):
            await node.send(verb, body={"id": f"c{number}"})
        node.broker.restore(node.bus)
        await node.ended("c2")
        assert [call[0] for call in node.driver.calls] == ["create-xml", "suspend", "resume", "suspend"]
        events = await node.events()
        assert [event["data"]["id"] for event in events if event["data"].get("id", "").startswith("c")] == ["c0", "c1", "c2"]


async def test_a_command_whose_time_is_over_before_it_began_expires(node: World) -> None:
    """Nothing is done, and who waits for it is told in time, however long what is before it takes."""
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a"})
        await node.send("destroy", body={"id": "b", "timeout_s": 0.05})
        told = await node.ended("b")
        assert (told["error"]["code"], told["error"]["outcome"]) == ("deadline", "none")
        assert kinds(await node.events())[-1] == "command.expired"
        fault.release()
        assert (await node.ended("a"))["ok"]
        assert ("destroy", WEB1) not in node.driver.calls


async def test_a_command_that_overruns_fails_and_is_settled_when_its_call_returns(node: World) -> None:
    """The domain's queue stays closed until then."""
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a", "timeout_s": 0.1})
        told = await node.ended("a")
        assert (told["error"]["code"], told["error"]["outcome"]) == ("deadline", "unknown")
        await node.send("resume", body={"id": "b"})
        fault.release()
        assert (await node.ended("b"))["changed"]
        names = kinds(await node.events())
        assert names[-5:] == ["command.failed", "lifecycle.suspended", "command.settled", "lifecycle.resumed", "command.succeeded"]
        settled = next(event for event in await node.events() if event["type"].endswith("command.settled"))
        assert settled["data"] == {"id": "a", "verb": "suspend", "outcome": "applied"}


async def test_a_stuck_domain_holds_up_nobody_else(node: World) -> None:
    """Each domain has a queue of its own."""
    async with node.worker():
        await node.create()
        await node.create(WEB2, "web2")
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "stuck"})
        await anyio.to_thread.run_sync(fault.entered.wait)
        assert (await node.do("suspend", WEB2))["ok"]
        assert ends(await node.events(), "stuck") == []
        fault.release()
        assert (await node.ended("stuck"))["ok"]


async def test_a_condition_that_does_not_hold_stops_the_command(node: World) -> None:
    """Judged at the head of the queue."""
    async with node.worker():
        await node.create()
        sequence = await node.send("destroy", body={"if": {"state": "paused"}})
        assert (await node.ended(f"m-run-{sequence}"))["error"]["code"] == "conflict"
        assert ("destroy", WEB1) not in node.driver.calls


async def test_an_order_with_an_old_fence_is_refused(node: World) -> None:
    """Also after a restart: the fence is remembered."""
    async with node.worker():
        await node.create()
        await node.send("suspend", body={"id": "new"}, Virt_Fence="7")
        await node.ended("new")
    async with node.worker():
        await node.send("resume", body={"id": "old"}, Virt_Fence="6")
        assert (await node.ended("old"))["error"]["code"] == "conflict"


async def test_a_lost_connection_leaves_the_outcome_open_and_the_hypervisor_is_opened_again(node: World) -> None:
    """`unknown`, never `gone`; the next command works."""
    async with node.worker():
        await node.create()
        node.driver.faults.fail(Lost("gone"), "suspend")
        result = await node.do("suspend")
        assert (result["error"]["code"], result["error"]["outcome"]) == ("node_unavailable", "unknown")
        node.driver.sever("daemon restarted")
        assert (await node.do("suspend"))["ok"]


async def test_what_exceeds_the_nodes_bound_ends_as_busy(node: World) -> None:
    """And only that."""
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "first"})
        await anyio.to_thread.run_sync(fault.entered.wait)
        for number in range(1_001):
            await node.send("resume", body={"id": f"r{number}"})
        assert (await node.ended("r1000"))["error"]["code"] == "busy"
        fault.release()
        assert (await node.ended("r998"))["ok"]


async def test_queries_are_answered_from_the_hypervisor_and_commands_from_the_ledger(node: World) -> None:
    """By name or UUID, within the project."""
    async with node.worker():
        await node.create()
        await node.do("suspend", id="a")

        async def ask(domain: str, query: str, body: bytes = b"", project: str = "default") -> dict[str, object]:
            answer = await node.client.request(SUBJECTS.ask(NODE, project, domain, query), body, timeout_s=5)
            read: dict[str, object] = json.loads(answer.body)
            return read

        assert (await ask("web1", "get"))["result"]["domain"]["state"] == "paused"  # type: ignore[index]
        assert "web1" in (await ask(WEB1, "xml"))["result"]["xml"]  # type: ignore[index]
        assert (await ask(WEB1, "stats"))["result"]["stats"]  # type: ignore[index]
        recorded = (await ask("_", "command", b'{"args":{"id":"a"}}'))["result"]["command"]  # type: ignore[index]
        assert (recorded["phase"], recorded["result"]["ok"]) == ("stored", True)
        assert (await ask("web9", "get"))["error"]["code"] == "not_found"  # type: ignore[index]
        assert (await ask(WEB1, "get", project="other"))["error"]["code"] == "not_found"  # type: ignore[index]
        assert (await ask(WEB1, "start"))["error"]["code"] == "invalid"  # type: ignore[index]
