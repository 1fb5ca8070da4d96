"""Cancelling by `api` and by `cmd`: wherever the target has got to, it has one end, and so has the cancel."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.bus.memory import MemoryBus
from orchestrator.bus.memory.pattern import takes
from orchestrator.bus.port import Expect, NoResponder, Outgoing, Uncertain
from orchestrator.engine import recent
from orchestrator.engine.pace import Pace
from orchestrator.protocol import codec, permission
from orchestrator.protocol.node import Leader
from tests.unit.engine.mortal import WAYS, MortalBus, Way
from tests.unit.engine.world import SUBJECTS, Running, Worker, World, forget_leader, uuid_of, world, xml

pytestmark = pytest.mark.anyio

ONE, TWO = uuid_of(1), uuid_of(2)
CALM = Pace(look=0.05, retry=0.01, ask=1.0, tick=0.1, renew=5.0)
CANCELLED = {"id": "t", "state": "cancelled"}


async def cancel(here: World, target: str = "t", id: str = "c", domain: str = "_", project: str = "p") -> Any:
    """Cancel a command and return the answer."""
    return await here.api(project, domain, "cancel", {"id": id, "args": {"id": target}})


async def made(here: World, uuid: str = ONE, name: str = "web1") -> None:
    """Define a domain."""
    assert (await here.api("p", uuid, "define-xml", {"args": {"xml": xml(name)}}))["ok"]


async def closed(here: World, worker: Worker, *, received: int = 1) -> anyio.Event:
    """Have a domain `web1` that is being made, and is not before the value is set; what follows for it waits at the coordinator."""
    gate = worker.gate["define-xml"] = anyio.Event()
    await here.cmd("p", ONE, "define-xml", {"id": "made", "args": {"xml": xml("web1")}})
    await here.until(lambda: len(worker.received) == received)
    return gate


async def ends(here: World, *ids: str) -> list[str]:
    """Wait for the ends of commands, and return them."""

    async def all_ended() -> bool:
        return {("p", id) for id in ids} <= set(await here.terminals())

    await here.until(all_ended)
    terminals = await here.terminals()
    return [each for id in ids for each in terminals["p", id]]


@pytest.mark.parametrize("domain", ["_", ONE, "web1"])
async def test_a_command_in_its_nodes_queue_is_cancelled_there(domain: str) -> None:
    """By the node, behind the target's own place; who waits for the target is answered."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        worker.gate["reset"] = anyio.Event()
        await here.cmd("p", ONE, "reset", {"id": "busy"})
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await here.api("p", ONE, "start", {"id": "t"}))

        here.tasks.start_soon(wait)
        await here.until(lambda: len(worker.received) == 3)
        done = await cancel(here, domain=domain)
        await here.until(lambda: answers)
        worker.gate["reset"].set()
        assert (True, True, "n1", "cancel", CANCELLED) == (done["ok"], done["changed"], done["node"], done["verb"], done["result"])
        assert ("cancelled", "none") == (answers[0]["error"]["code"], answers[0]["error"]["outcome"])
        assert ["command.cancelled", "command.succeeded", "command.succeeded"] == await ends(here, "t", "c", "busy")
        assert ["virt.v1.run.n1.p.00000000-0000-4000-8000-000000000001.cancel"] == [
            SUBJECTS.stored(each.subject) for each in worker.received if "cancel" in each.subject
        ]


@pytest.mark.parametrize("domain", ["_", ONE, "web1"])
@pytest.mark.parametrize("by", ["api", "cmd"])
async def test_a_command_that_waits_at_the_coordinator_is_cancelled_there_and_never_routed(by: str, domain: str) -> None:
    """Nor by the next leader; what is behind it goes on."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator()
        gate = await closed(here, worker)
        if by == "api":
            here.tasks.start_soon(here.api, "p", "web1", "start", {"id": "t"})
        else:
            await here.cmd("p", "web1", "start", {"id": "t"})
        await here.cmd("p", ONE, "reset", {"id": "next"})
        await anyio.sleep(0.05)
        done = await cancel(here, domain=domain)
        again = await cancel(here, id="c2")
        assert (True, True, "_", CANCELLED) == (done["ok"], done["changed"], done["node"], done["result"])
        assert (True, False, "_", CANCELLED) == (again["ok"], again["changed"], again["node"], again["result"])
        assert ["command.cancelled", "command.succeeded", "command.succeeded"] == await ends(here, "t", "c", "c2")
        await first.stop()
        await forget_leader(here)
        gate.set()
        await here.coordinator("c2")
        assert ["command.succeeded"] == await ends(here, "next")
        assert {"made", "next"} == {id for _, id, _ in worker.ran}


async def test_a_command_that_makes_a_domain_leaves_no_record_when_it_is_cancelled() -> None:
    """Neither before it was routed nor after."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        gate = await closed(here, worker)
        await here.cmd("p", TWO, "define-xml", {"id": "t", "args": {"xml": xml("web2")}})
        await here.until(lambda: len(worker.received) == 2)
        await here.cmd("p", ONE, "define-xml", {"id": "t2", "args": {"xml": xml("web1")}})
        await anyio.sleep(0.05)
        assert (await cancel(here, "t", "c"))["changed"]
        assert (await cancel(here, "t2", "c2"))["changed"]

        async def released() -> bool:
            return await here.owner(TWO) is None

        await here.until(released)
        gate.set()
        assert ["command.succeeded"] == await ends(here, "made")
        assert [("p", "made", "define-xml")] == worker.ran


async def test_of_what_has_ended_the_cancel_tells_how() -> None:
    """Also by a coordinator that saw nothing of it, and when the node that ended it is gone."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator()
        await made(here)
        done = await here.api("p", ONE, "start", {"id": "t"})
        lost = await here.api("p", "nobody", "start", {"id": "t2"})
        answers = [await cancel(here, "t", "c1"), await cancel(here, "t2", "c2")]
        await first.stop()
        await here.coordinator("c2")
        answers += [await cancel(here, "t", "c3"), await cancel(here, "t2", "c4")]
        await worker.leave()
        here.broker.cut(worker.bus)
        answers += [await cancel(here, "t", "c5", ONE)]
        assert ["conflict"] * 5 == [answer["error"]["code"] for answer in answers]
        assert [done, lost, done, lost, done] == [answer["result"]["recorded"] for answer in answers]
        assert ["succeeded", "failed"] == [answer["result"]["state"] for answer in answers[:2]]


async def test_what_nobody_knows_is_not_found() -> None:
    """Nor a command of another domain or project; a cancel of itself, or with a condition, is invalid."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        await made(here, TWO, "web2")
        gate = worker.gate["reset"] = anyio.Event()
        await here.cmd("p", ONE, "reset", {"id": "t"})
        await here.until(lambda: len(worker.received) == 3)
        answers = [
            await cancel(here, "nothing", "c1"),
            await cancel(here, "t", "c2", TWO),
            await cancel(here, "t", "c3", "web2"),
            await cancel(here, "t", "c4", project="q"),
            await cancel(here, "c5", "c5"),
            await here.api("p", "_", "cancel", {"args": {"id": "t"}, "if": {"state": "running"}}),
            await here.api("_", "_", "cancel", {"args": {"id": "t"}}),
        ]
        gate.set()
        assert ["not_found"] * 4 + ["invalid"] * 3 == [answer["error"]["code"] for answer in answers]
        assert ["command.failed"] * 3 == await ends(here, "c1", "c2", "c3")
        assert ["command.succeeded"] == await ends(here, "t")


async def test_a_cancel_repeated_is_answered_with_its_first_outcome() -> None:
    """Also by a coordinator that saw nothing of it; another command under its id is a conflict."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator()
        gate = await closed(here, worker)
        await here.cmd("p", "web1", "start", {"id": "t"})
        await anyio.sleep(0.05)
        answers = [await cancel(here), await cancel(here)]
        missed = [await cancel(here, "nothing", "c9")]
        taken = await cancel(here, "other", "c")
        await first.stop()
        await forget_leader(here)
        await here.coordinator("c2")
        answers.append(await cancel(here))
        missed.append(await cancel(here, "nothing", "c9"))
        gate.set()
        assert [answers[0]] * 3 == answers
        assert [missed[0]] * 2 == missed
        assert ("conflict", "c", False) == (taken["error"]["code"], taken["id"], taken["final"])
        assert ["command.succeeded", "command.failed"] == await ends(here, "c", "c9")


async def test_a_cancel_left_in_the_log_is_out_of_turn_too() -> None:
    """Fire and forget; its end is in the log of events."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        gate = await closed(here, worker)
        sequence = await here.cmd("p", "web1", "start")
        await here.cmd("p", "_", "cancel", {"id": "c", "args": {"id": f"m-cmd-{sequence}"}})
        assert ["command.cancelled", "command.succeeded"] == await ends(here, f"m-cmd-{sequence}", "c")
        gate.set()


async def test_a_cancel_finds_its_target_at_any_coordinator() -> None:
    """Whoever is asked, and whoever has it."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator("c1")
        gate = await closed(here, worker)
        targets = [f"t{number}" for number in range(8)]
        for target in targets:
            here.tasks.start_soon(here.api, "p", "web1", "start", {"id": target})
        await anyio.sleep(0.05)
        await here.coordinator("c2")
        done = [await cancel(here, target, f"c-{target}") for target in targets]
        gate.set()
        assert [(True, True)] * 8 == [(each["ok"], each["changed"]) for each in done]
        assert ["command.cancelled"] * 8 == await ends(here, *targets)
        assert [("p", "made", "define-xml")] == worker.ran


async def test_a_command_that_no_leader_has_read_yet_is_cancelled_once_one_has() -> None:
    """Until then the cancel waits, and in the end it expires."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        gate = worker.gate["reset"] = anyio.Event()
        await here.bus.append(Outgoing(SUBJECTS.run("n1", "p", ONE, "reset"), b"", {"Virt-Id": "busy"}))
        away = Leader(coordinator="c9", epoch=1, updated="")
        await here.bucket("cursors").put("leader", codec.encode(away))
        await here.coordinator("c1")
        await here.cmd("p", "web1", "start", {"id": "t"})
        late = await here.api("p", "_", "cancel", {"id": "c1", "args": {"id": "t"}, "timeout_s": 0.3})
        assert ("deadline", "none") == (late["error"]["code"], late["error"]["outcome"])
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await cancel(here))

        here.tasks.start_soon(wait)
        await anyio.sleep(0.3)
        assert [] == answers
        await forget_leader(here)
        await here.until(lambda: answers)
        gate.set()
        assert (True, CANCELLED) == (answers[0]["ok"], answers[0]["result"])
        assert ["command.succeeded", "command.cancelled"] == await ends(here, "busy", "t")


async def _asked(here: World, domain: str, verb: str, body: Any) -> Any:
    """Ask until there is an answer, each time under the same id, as a client does whose coordinator may have died."""
    with anyio.fail_after(10):
        while True:
            try:
                return await here.api("p", domain, verb, body, timeout_s=0.1)
            except (NoResponder, Uncertain):
                await anyio.sleep(0.01)


async def _succeeded(here: World, running: Running) -> None:
    """Let another coordinator take over when this one dies."""
    await running.stopped.wait()
    await forget_leader(here)
    await here.coordinator("c2", pace=CALM)


@pytest.mark.parametrize("way", WAYS)
async def test_target_and_cancel_have_one_end_each_wherever_the_coordinator_fails(way: Way) -> None:
    """Each exchange with the broker is in turn the one at which it happens: `t` waits at the coordinator, `t2` at the node."""
    at, happened = 0, True
    while happened:
        at += 1
        async with world() as here:
            worker = await here.worker("n1")
            await worker.show("p", TWO, "web2")
            gate = worker.gate["suspend"] = anyio.Event()
            await here.bus.append(Outgoing(SUBJECTS.run("n1", "p", TWO, "suspend"), b"", {"Virt-Id": "busy"}))
            await here.cmd("p", ONE, "define-xml", {"id": "made", "args": {"xml": xml("web1")}})
            await here.cmd("p", "web1", "start", {"id": "t"})
            await here.cmd("p", TWO, "reset", {"id": "t2"})
            bus = MortalBus(here.broker, at=at, way=way)
            running = Running(here, "c1", bus, CALM)
            bus.die = running.scope.cancel
            here.tasks.start_soon(_succeeded, here, running)
            await running.start()
            done = [await _asked(here, "_", "cancel", {"id": f"c-{id}", "args": {"id": id}}) for id in ("t", "t2")]
            happened = bus.exchanges >= at
            gate.set()
            await ends(here, "made")
            where = f"{way} {at}: {done}"
            assert [(True, True)] * 2 == [(each["ok"], each["changed"]) for each in done], where
            assert {("p", id): ["command.cancelled"] for id in ("t", "t2")} | {
                ("p", id): ["command.succeeded"] for id in ("busy", "made", "c-t", "c-t2")
            } == await here.terminals(), where
            assert ["busy", "made"] == [id for _, id, _ in worker.ran], where
    assert at > 20, "there are many exchanges at which it was tried"


class Hesitant(MemoryBus):
    """A bus that takes its time to store a `reset`."""

    def __init__(self, here: World) -> None:
        super().__init__(here.broker, name="hesitant")
        self.come_to = anyio.Event()
        self.go_on = anyio.Event()

    async def append(self, message: Outgoing, expect: Expect | None = None) -> int:
        """Store a message."""
        if message.subject.endswith(".reset"):
            self.come_to.set()
            await self.go_on.wait()
        return await super().append(message, expect)


async def test_a_cancel_never_overtakes_its_target() -> None:
    """While it is not sure that the target is in the node's log, the cancel waits."""
    async with world() as here:
        worker = await here.worker("n1")
        bus = Hesitant(here)
        await here.coordinator(bus=bus)
        await made(here)
        gate = worker.gate["start"] = anyio.Event()
        await here.cmd("p", ONE, "start", {"id": "busy"})
        await here.cmd("p", ONE, "reset", {"id": "t"})
        await bus.come_to.wait()
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await cancel(here))

        here.tasks.start_soon(wait)
        await anyio.sleep(0.1)
        bus.go_on.set()
        await here.until(lambda: answers)
        gate.set()
        assert (True, True) == (answers[0]["ok"], answers[0]["changed"])
        assert ["reset", "cancel"] == [each.subject.rpartition(".")[2] for each in worker.received][-2:]


async def test_a_cancel_follows_its_target_to_a_node_that_does_not_answer() -> None:
    """The log of the node's commands tells, and both wait there."""
    async with world() as here:
        await here.coordinator()
        subject = SUBJECTS.run("n1", "p", ONE, "start")
        places = [await here.bus.append(Outgoing(subject, b"", headers)) for headers in ({"Virt-Id": "t"}, {})]
        for number, target in enumerate(("t", f"m-run-{places[1]}", f"m-run-{places[0]}")):
            body = {"id": f"c{number}", "args": {"id": target}, "timeout_s": 0.5}
            answer = await here.api("p", "_", "cancel", body)
            expected = ("deadline", "unknown") if number < 2 else ("not_found", "none")
            assert expected == (answer["error"]["code"], answer["error"]["outcome"])
        stored = await here.log(SUBJECTS.log_run, SUBJECTS.run("n1", "p", ONE, "cancel"))
        assert ["c0", "c1"] == [each.headers["Virt-Id"] for each in stored]


async def test_while_a_node_is_silent_nothing_is_called_unknown() -> None:
    """It may be the one that has it."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await worker.leave()
        answer = await cancel(here)
        assert ("node_unavailable", "none", True) == tuple(answer["error"][key] for key in ("code", "outcome", "retryable"))
        assert "n1" in answer["error"]["message"]


async def test_a_cancel_cannot_be_cancelled() -> None:
    """Not even while it looks for its target."""
    async with world() as here:
        await here.coordinator()
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await cancel(here, "nothing", "c1"))

        here.tasks.start_soon(wait)
        await anyio.sleep(0.02)
        refused = await cancel(here, "c1", "c2")
        await here.until(lambda: answers)
        assert ("conflict", {"id": "c1", "state": "begun"}) == (refused["error"]["code"], refused["result"])
        assert "not_found" == answers[0]["error"]["code"]


async def test_a_cancel_that_its_node_judged_is_not_judged_again() -> None:
    """Where only its result was heard, the node is asked; where the node is away, the log of events."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.leave()
        await worker.show("p", ONE, "web1")
        first = await here.coordinator()
        await here.bus.append(Outgoing(SUBJECTS.run("n1", "p", ONE, "start"), b"", {"Virt-Id": "t"}))
        await ends(here, "t")
        body = codec.encode({"args": {"id": "t"}})
        await here.bus.append(Outgoing(SUBJECTS.run("n1", "p", ONE, "cancel"), body, {"Virt-Id": "c"}))
        assert ["command.failed"] == await ends(here, "c")
        answers = [await cancel(here)]
        await first.stop()
        await forget_leader(here)
        here.broker.cut(worker.bus)
        await here.coordinator("c2")
        answers += [await cancel(here)]
        assert [("n1", "succeeded")] * 2 == [(answer["node"], answer["result"]["state"]) for answer in answers]
        assert ["command.failed"] == await ends(here, "c")


async def test_a_target_whose_result_was_too_large_to_be_kept_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """That only its node was heard of says neither that it runs nor that it waits."""
    monkeypatch.setattr(recent, "MAX_RESULT", 10)
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await made(here)
        await here.bus.append(Outgoing(SUBJECTS.run("n1", "p", ONE, "start"), b"", {"Virt-Id": "t"}))
        assert ["command.succeeded"] == await ends(here, "t")
        late = await cancel(here)
        assert ("conflict", "succeeded") == (late["error"]["code"], late["result"]["state"])


async def test_a_withdrawn_copy_of_what_a_node_has_ended_is_answered_by_the_node() -> None:
    """The log of events is asked before anything is ended as cancelled."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        await here.bus.append(Outgoing(SUBJECTS.run("n1", "p", ONE, "start"), b"", {"Virt-Id": "t"}))
        assert ["command.succeeded"] == await ends(here, "t")
        await here.coordinator()
        gate = await closed(here, worker, received=2)
        await here.cmd("p", ONE, "start", {"id": "t"})
        await anyio.sleep(0.05)
        late = await cancel(here)
        gate.set()
        assert ("conflict", "succeeded") == (late["error"]["code"], late["result"]["state"])
        assert ["command.succeeded"] * 2 == await ends(here, "t", "made")
        assert 3 == len([each for each in worker.received if not each.subject.endswith("cancel")]), "the copy was routed"


def test_only_coordinators_withdraw_what_others_have_not_routed() -> None:
    """A client that could would go past the verbs that it may use."""
    users = {
        "coordinator": permission.coordinator(SUBJECTS, "a"),
        "worker": permission.worker(SUBJECTS, "n1"),
        "client": permission.client(SUBJECTS, "a", "p", direct=True),
        "observer": permission.observer(SUBJECTS, "a"),
        "admin": permission.admin(SUBJECTS, "a"),
    }
    may = [who for who, allowed in users.items() for subject in allowed.publish if takes(subject, SUBJECTS.withdrawals)]
    assert ["coordinator"] == may
    assert not any(takes(subject, SUBJECTS.api("p", "_", "cancel")) for subject in users["observer"].publish)


async def test_what_is_no_request_of_a_coordinator_is_left_alone() -> None:
    """Garbage between coordinators ends nothing."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        gate = await closed(here, worker)
        await here.cmd("p", "web1", "start", {"id": "t"})
        await here.bus.publish(SUBJECTS.withdrawals, b"{")
        await here.bus.publish(SUBJECTS.withdrawals, codec.encode({"project": "p", "id": "t", "by": "c", "at": "c9"}))
        gate.set()
        assert ["command.succeeded"] == await ends(here, "t")
