"""Laws of domains that do not answer: each holds up nobody but itself, is told, and comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from tests.unit.worker.world import NODE, SUBJECTS, WEB1, WEB2, XML, World, ends, kinds, world
from workers.drivers.port import Happening
from workers.engine import attempt, backlog, lane, looks, questions, vigil

pytestmark = pytest.mark.anyio


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Give a node whose worker does not run yet, and is impatient."""
    monkeypatch.setattr(attempt, "PATIENCE_S", 0.02)
    async with world() as made:
        yield made


def told(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the data of all events of a kind."""
    return [event["data"] for event in events if event["type"] == f"virt.v1.{kind}"]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    with anyio.fail_after(5):
        while not holds():
            await anyio.sleep(0.01)


async def ask(node: World, domain: str, query: str) -> dict[str, Any]:
    """Ask the node."""
    answer = await node.client.request(SUBJECTS.ask(NODE, "default", domain, query), b"", timeout_s=5)
    read: dict[str, Any] = json.loads(answer.body)
    return read


async def test_a_stuck_domain_is_told_once_and_again_when_it_is_well(node: World) -> None:
    """With the command whose call has not returned, and since when; then for how long it was so."""
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a", "timeout_s": 0.1})
        found = await node.until(lambda events: bool(told(events, "health.stuck-domain")))
        (event,) = [event for event in found if event["type"].endswith("stuck-domain")]
        assert (event["commandid"], event["subject"], event["domainname"], event["project"]) == ("a", WEB1, "web1", "default")
        since = event["data"].pop("since")
        assert event["data"] == {"stuck": True, "call": "run", "verb": "suspend", "hypervisor": "memory:///default"}
        fault.release()
        found = await node.until(lambda events: len(told(events, "health.stuck-domain")) == 2)
        well = told(found, "health.stuck-domain")[1]
        assert (well["stuck"], well["since"], well["verb"], well["seconds"] > 0) == (False, since, "suspend", True)
        assert (await node.do("resume"))["changed"]
        assert len(told(await node.events(), "health.stuck-domain")) == 2


async def test_a_call_that_takes_long_is_told_once_while_it_runs(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command has more time: it may yet succeed."""
    monkeypatch.setattr(attempt, "SLOW_S", 0.05)
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a"})
        slow = told(await node.until(lambda events: bool(told(events, "health.slow-call"))), "health.slow-call")
        assert [(one["call"], one["verb"], one["seconds"] >= 0.05) for one in slow] == [("run", "suspend", True)]
        fault.release()
        assert (await node.ended("a"))["ok"]
        assert len(told(await node.events(), "health.slow-call")) == 1
        assert told(await node.events(), "health.stuck-domain") == []


async def test_a_call_is_late_though_its_command_has_more_time(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits an hour to be told that a domain hangs."""
    monkeypatch.setattr(attempt, "STUCK_S", 0.05)
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a", "timeout_s": 3600})
        await node.until(lambda events: bool(told(events, "health.stuck-domain")))
        fault.release()
        assert (await node.ended("a"))["ok"]


async def test_commands_behind_a_stuck_domain_expire_in_time_and_others_run(node: World) -> None:
    """Its queue stays closed until the call has returned; then the rest goes on, in order."""
    async with node.worker():
        await node.create()
        await node.create(WEB2, "web2")
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a", "timeout_s": 0.1})
        await node.ended("a")
        await node.send("resume", body={"id": "b", "timeout_s": 0.1})
        await node.send("resume", body={"id": "c"})
        assert (await node.ended("b"))["error"] == {
            "code": "deadline", "message": "not begun before its deadline", "retryable": True, "outcome": "none",
        }  # fmt: skip
        assert (await node.do("suspend", WEB2))["changed"]
        assert ends(await node.events(), "c") == []
        fault.release()
        assert (await node.ended("c"))["changed"]
        assert [call for call in node.driver.calls if call[1] == WEB1] == [("create-xml", WEB1), ("suspend", WEB1), ("resume", WEB1)]
        names = kinds(await node.events())
        assert names.index("command.settled") < names.index("lifecycle.resumed", names.index("command.settled"))


async def test_a_stuck_domain_leaves_room_to_others(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exceeds its own bound is busy, long before the node is full."""
    monkeypatch.setattr(vigil, "MAX_WAITING", 3)
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a", "timeout_s": 0.1})
        await node.until(lambda events: bool(told(events, "health.stuck-domain")))
        for number in range(3):
            await node.send("resume", body={"id": f"r{number}"})
            with anyio.fail_after(5):
                while (await command(node, f"r{number}")) is None:
                    await anyio.sleep(0.01)
        assert (await node.do("resume", id="r3"))["error"]["code"] == "busy"
        fault.release()
        assert (await node.ended("r2"))["ok"]
        assert (await node.do("suspend"))["ok"]


async def command(node: World, id: str) -> str | None:
    """Return the phase of a command that the node has taken in."""
    body = json.dumps({"args": {"id": id}}).encode()
    answer = await node.client.request(SUBJECTS.ask(NODE, "default", "_", "command"), body, timeout_s=5)
    found = json.loads(answer.body).get("result")
    return found["command"]["phase"] if found else None


async def test_a_query_of_a_stuck_domain_answers_deadline_and_takes_one_thread_at_most(
    node: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next is answered at once, without another call; those of other domains as ever; and all of them when it is well."""
    monkeypatch.setattr(questions, "ANSWER_S", 0.1)
    async with node.worker():
        await node.create()
        await node.create(WEB2, "web2")
        fault = node.driver.faults.hang("ask")
        assert (await ask(node, WEB1, "stats"))["error"]["code"] == "deadline"
        assert (await ask(node, WEB1, "stats"))["error"]["code"] == "deadline"
        assert (await ask(node, WEB2, "stats"))["result"]["stats"]
        (stuck,) = told(await node.until(lambda events: bool(told(events, "health.stuck-domain"))), "health.stuck-domain")
        assert (stuck["call"], stuck["verb"]) == ("ask", "stats")
        fault.release()
        await node.until(lambda events: len(told(events, "health.stuck-domain")) == 2)
        assert (await ask(node, WEB1, "stats"))["result"]["stats"]


async def test_a_domain_whose_looks_hang_is_unknown_until_they_return(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never gone; and what it is then is told without another event."""
    monkeypatch.setattr(looks, "LOOK_S", 0.05)
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("look")
        node.driver.machine.crash(WEB1)
        await node.until(lambda events: bool(told(events, "health.stuck-domain")))
        state = await node.state()
        assert state is not None
        assert (state["state"], state["name"]) == ("unknown", "web1")
        fault.release()
        await node.until(lambda events: any(event["type"].endswith("state.changed") for event in events))
        assert told(await node.events(), "state.changed")[-1]["state"] == "shutoff"


async def test_a_running_domain_that_cannot_be_marked_does_not_hold_up_the_scan(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node comes online, all domains are told, that one without an incarnation, and it is told to be stuck."""
    monkeypatch.setattr(looks, "MARK_S", 0.05)
    monkeypatch.setattr(looks, "LOOK_S", 0.5)
    async with node.worker():
        await node.create()
        await node.create(WEB2, "web2")
    for domain in node.driver.machine.domains.values():
        domain.incarnation = None  # as if somebody else had started them
    fault = node.driver.faults.hang("mark")
    async with node.worker():
        await node.until(lambda events: bool(told(events, "health.stuck-domain")))
        assert (await node.do("suspend", WEB2))["changed"]
        state = await node.state()
        assert state is not None
        assert (state["state"], state["incarnation"]) == ("running", None)
        fault.release()
        await node.until(lambda events: len(told(events, "health.stuck-domain")) == 2)
        changed = told(await node.until(lambda events: bool(told(events, "state.changed"))), "state.changed")
        assert [node.driver.machine.domains[WEB1].incarnation] == [one["incarnation"] for one in changed]


async def test_events_beyond_the_bound_become_a_look_inside_a_bracket_of_their_own(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing grows without end, and who reads the stream knows where it is not whole."""
    monkeypatch.setattr("workers.engine.queue.MAX_EVENTS", 4)
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("look")
        node.driver.machine.crash(WEB1)
        await anyio.to_thread.run_sync(fault.entered.wait)
        before = len(await node.events())
        node.driver.machine.start(WEB1, None, None)  # type: ignore[arg-type]
        for _ in range(5):
            node.driver._emit(Happening(uuid=WEB1, name="web1", event="reboot", detail="", data={}))
        fault.release()
        found = await node.until(lambda events: any(event["type"].endswith("stream.resync") for event in events[before:]))
        named = [event["type"].removeprefix("virt.v1.") for event in found[before:] if event["subject"] == WEB1]
        assert named == ["lifecycle.stopped", "stream.gap", "state.changed", "stream.resync"]
        gap, resync = (event["data"] for event in found[before:] if event["type"].startswith("virt.v1.stream."))
        assert (gap["lost"], gap["reason"], gap["from"]["epoch"]) == (7, "too many events", resync["to"]["epoch"])
        state = await node.state()
        assert state is not None
        assert state["state"] == "running"


def test_events_held_during_a_scan_are_bounded_for_each_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has too many loses them all, and others none."""
    monkeypatch.setattr(backlog, "MAX_EVENTS", 2)
    held = backlog.Held()
    noisy, calm = (Happening(uuid=uuid, name="", event="reboot", detail="", data={}) for uuid in ("a", "b"))
    for happening in (noisy, calm, noisy, noisy, noisy):
        held.add(happening)
    assert held.lost == {"a": 4}
    assert held.take() == {"a": [], "b": [calm]}
    held.add(noisy)
    assert ({}, [noisy]) == (held.lost, list(held.release()))


async def test_as_many_calls_may_hang_as_there_are_spare_threads_then_the_node_is_busy_and_it_recovers(
    node: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that hangs has its thread replaced up to the limit; queries and the proof of health have threads of their own."""
    monkeypatch.setattr(lane, "HUNG_S", 0.05)
    monkeypatch.setattr(lane, "RELIEF_S", 0.01)
    lanes = lane.Lanes(
        short=lane.ThreadLane("short", 2, spare=2), long=lane.ThreadLane("long", 1), reads=lane.ThreadLane("reads", 2, spare=2),
        disk=lane.ThreadLane("disk", 1), upkeep=lane.ThreadLane("upkeep", 2),
    )  # fmt: skip
    uuids = [f"6f1c0000-0000-4000-8000-0000000001{number:02d}" for number in range(6)]
    async with node.worker(lanes=lanes):
        for number, uuid in enumerate(uuids):
            await node.create(uuid, f"vm{number}")
        faults = []
        for uuid in uuids[:3]:
            faults.append(node.driver.faults.hang("suspend"))
            await node.send("suspend", uuid, body={"id": f"hung-{uuid}"})
            await anyio.to_thread.run_sync(faults[-1].entered.wait)
            assert (await node.do("set-autostart", uuids[5], args={"enabled": len(faults) % 2 == 1}))["ok"], "the others go on"
        faults.append(node.driver.faults.hang("suspend"))
        await node.send("suspend", uuids[3], body={"id": f"hung-{uuids[3]}"})
        await anyio.to_thread.run_sync(faults[-1].entered.wait)
        await until(lambda: lanes.short.full)
        told_busy = await node.do("suspend", uuids[4], id="refused")
        assert (told_busy["error"]["code"], told_busy["error"]["outcome"]) == ("busy", "none")
        assert ("suspend", uuids[4]) not in node.driver.calls
        assert (await ask(node, uuids[3], "get"))["result"]["domain"]["state"] == "running", "looks have threads of their own"
        faults[0].release()
        await until(lambda: not lanes.short.full)
        assert (await node.do("suspend", uuids[4]))["changed"]
        for fault in faults:
            fault.release()
        for uuid in uuids[:4]:
            assert (await node.ended(f"hung-{uuid}"))["changed"]
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("short-")]) <= 2
        assert (await node.do("resume", uuids[0]))["changed"]


async def test_a_command_for_which_no_thread_was_free_expires_and_is_never_made(node: World) -> None:
    """Its outcome is known: nothing was done, also not later."""
    one, two = lane.ThreadLane("short", 1), lane.ThreadLane("reads", 2)
    lanes = lane.Lanes(short=one, long=two, reads=two, disk=lane.ThreadLane("disk", 1))
    async with node.worker(lanes=lanes):
        await node.create()
        await node.create(WEB2, "web2")
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "a"})
        await anyio.to_thread.run_sync(fault.entered.wait)
        told_late = await node.do("destroy", WEB2, id="b", timeout_s=0.1)
        assert (told_late["error"]["code"], told_late["error"]["outcome"]) == ("deadline", "none")
        assert kinds(await node.events(), WEB2)[-1] == "command.expired"
        fault.release()
        assert (await node.ended("a"))["ok"]
        assert (await node.do("suspend", WEB2))["changed"]
        assert ("destroy", WEB2) not in node.driver.calls


async def test_a_create_that_is_slow_is_no_stuck_domain(node: World) -> None:
    """A domain that is not there yet has nothing to be well again of."""
    async with node.worker():
        await node.send("create-xml", body={"id": "a", "args": {"xml": XML.format(name="web1")}})
        assert (await node.ended("a"))["ok"]
        assert told(await node.events(), "health.stuck-domain") == []
