"""Commands by `api`: placed, located, answered with their end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.bus.port import Outgoing
from orchestrator.control import admission, lease
from orchestrator.engine.pace import Pace
from orchestrator.protocol import codec, token
from orchestrator.protocol.error import HypervisorRefused
from orchestrator.protocol.subject import domain_key
from tests.unit.engine.world import SUBJECTS, World, forget_leader, uuid_of, world, xml

pytestmark = pytest.mark.anyio

ONE, TWO = uuid_of(1), uuid_of(2)


def said(answer: dict[str, Any]) -> tuple[str, str, bool]:
    """Return code and outcome of a refusal, and whether it is final."""
    assert not answer["ok"], answer
    return answer["error"]["code"], answer["error"]["outcome"], answer.get("final", True)


async def made(here: World, name: str = "web1", uuid: str = ONE, **args: Any) -> Any:
    """Define a domain and return the answer."""
    return await here.api("p", uuid, "define-xml", {"args": {"xml": xml(name), **args}})


async def test_a_created_domain_can_be_started_and_undefined_by_name() -> None:
    """The main way, from nothing to nothing; the owner record comes first and goes last."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()

        created = await here.api("p", "web1", "define-xml", {"id": "a", "args": {"xml": xml()}})
        owner = await here.owner(token.derived_uuid("p", "a"))
        started = await here.api("p", "web1", "start", {"id": "b"})
        undefined = await here.api("p", "web1", "undefine", {"id": "c"})

        assert [True] * 3 == [answer["ok"] for answer in (created, started, undefined)], (created, started, undefined)
        assert [("p", "a", "define-xml"), ("p", "b", "start"), ("p", "c", "undefine")] == worker.ran
        assert owner is not None
        assert ("n1", "a", "web1") == (owner.node, owner.id, owner.name)

        async def released() -> bool:
            return await here.owner(owner_uuid) is None

        owner_uuid = created["domain"]["uuid"]
        await here.until(released)


async def test_what_is_routed_carries_deadline_fence_id_and_trace() -> None:
    """What the worker needs, and what follows the command on its way."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        raw = codec.encode({"id": "k1", "timeout_s": 30})
        await here.bus.request(SUBJECTS.api("p", ONE, "start"), raw, {"traceparent": "t"}, timeout_s=5)

        message = worker.received[-1]
        headers = dict(message.headers)
        assert ("k1", "1", "t") == (headers["Virt-Id"], headers["Virt-Fence"], headers["traceparent"])
        assert "Virt-Cmd" not in headers
        assert raw == message.body
        assert headers["Virt-Deadline"].endswith("Z")


async def test_a_new_domain_goes_to_the_node_with_most_memory_and_a_burst_is_spread() -> None:
    """What was promised to one counts for the next."""
    async with world() as here:
        await here.worker("n1", free_kib=10_000)
        await here.worker("n2", free_kib=10_001)
        await here.coordinator()
        answers = [
            await here.api("p", uuid_of(number), "create-xml", {"args": {"xml": xml(f"w{number}", memory_kib=1000)}}) for number in range(4)
        ]
        assert ["n2", "n1", "n2", "n1"] == [answer["node"] for answer in answers]


async def test_without_nodes_a_new_domain_is_refused_with_the_reason() -> None:
    """Its end is in the log, under the coordinators' node token."""
    async with world() as here:
        await here.coordinator()
        answer = await here.api("p", "web1", "create-xml", {"id": "k1", "args": {"xml": xml()}})
        (event,) = await here.events()
        assert ("no_capacity", "none", True) == said(answer)
        assert ("_", "command.failed", "k1", "/virt/coordinators/c1") == (event.node, event.name, event.commandid, event.source)
        assert await here.owner(answer["domain"]["uuid"]) is None


@pytest.mark.parametrize(
    ("domain", "verb", "body", "code"),
    [
        ("nobody", "start", b"", "not_found"),
        (TWO, "start", b"", "not_found"),
        (ONE, "start", b"[]", "invalid"),
        (ONE, "start", b'{"nonsense": 1}', "invalid"),
        (ONE, "frobnicate", b"", "invalid"),
        ("a%b", "start", b"", "invalid"),
        (ONE, "define-xml", b'{"args": {"xml": "<domain type=\'test\'><name>web1</name></domain>", "node": "n2"}}', "conflict"),
        (TWO, "define-xml", b'{"args": {"xml": "<domain type=\'test\'><name>w</name></domain>", "node": "n9"}}', "not_found"),
        (TWO, "define-xml", b'{"args": {"xml": "<domain type=\'lxc\'><name>w</name></domain>", "node": "n1"}}', "unsupported"),
    ],
)
async def test_what_cannot_be_routed_ends_here_with_one_event(domain: str, verb: str, body: bytes, code: str) -> None:
    """The answer has the headers of a micro service's error."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await made(here)
        before = len(await here.log(SUBJECTS.log_run))
        got = await here.bus.request(SUBJECTS.api("p", domain, verb), body, {"Virt-Id": "k1"}, timeout_s=5)
        answer = codec.decode(got.body, dict)
        assert (code, "none", True) == said(answer)
        assert code == got.headers["Nats-Service-Error"]
        assert got.headers["Nats-Service-Error-Code"].isdigit()
        assert ["command.failed"] == (await here.terminals())["p", "k1"]
        assert before == len(await here.log(SUBJECTS.log_run))


async def test_a_subject_of_another_shape_ends_with_an_event_of_no_project() -> None:
    """What it was is told in its data."""
    async with world() as here:
        await here.coordinator()
        got = await here.bus.request("virt.v1.api.p.web1.start.now", b"", timeout_s=5)
        (event,) = await here.events()
        answer = codec.decode(got.body, dict)
        assert ("invalid", "none", True) == said(answer)
        assert "virt.v1.api.p.web1.start.now" == answer["subject"]
        assert ("_", "_", "virt.v1.command.failed") == (event.project, event.subject, event.type)


async def test_a_domain_of_another_project_is_not_found() -> None:
    """By UUID, by name, and when it would be made again."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await made(here)
        answers = [
            await here.api("q", ONE, "start"),
            await here.api("q", "web1", "start"),
            await here.api("q", ONE, "define-xml", {"args": {"xml": xml("web1")}}),
        ]
        assert ["not_found", "not_found", "conflict"] == [said(answer)[0] for answer in answers]


async def test_a_name_of_several_domains_is_a_conflict_that_names_them() -> None:
    """So that one can be addressed; by name alone no second one is made, unless the node is named."""
    async with world() as here:
        await here.worker("n1")
        await here.worker("n2")
        await here.coordinator()
        await made(here, "web1", ONE, node="n1")
        refused = await here.api("p", "web1", "define-xml", {"args": {"xml": xml("web1")}})
        second = await here.api("p", "web1", "define-xml", {"args": {"xml": xml("web1", TWO), "node": "n2"}})
        both = await here.api("p", "web1", "start")
        assert ["already_exists", True, "conflict"] == [said(refused)[0], second["ok"], said(both)[0]]
        assert ONE in both["error"]["message"]
        assert TWO in both["error"]["message"]


async def test_a_defined_domain_is_redefined_where_it_is() -> None:
    """Wherever there is more memory."""
    async with world() as here:
        await here.worker("n1", free_kib=10)
        await here.coordinator()
        await made(here)
        await here.worker("n2", free_kib=1000)
        again = await made(here)
        assert ("n1", True) == (again["node"], again["ok"])


async def test_a_name_is_free_again_once_its_domain_is_undefined() -> None:
    """Even where the one is asked for while the other is still on its way."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await here.api("p", "web1", "define-xml", {"id": "a", "args": {"xml": xml()}})
        worker.gate["undefine"] = anyio.Event()
        answers: dict[str, Any] = {}

        async def ask(verb: str, body: Any) -> None:
            answers[verb] = await here.api("p", "web1", verb, body)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "undefine", None)
            await here.until(lambda: len(worker.received) == 2)
            tasks.start_soon(ask, "create-xml", {"id": "b", "args": {"xml": xml()}})
            await anyio.sleep(0.02)
            worker.gate.pop("undefine").set()
        assert [True, True] == [answers[verb]["ok"] for verb in ("undefine", "create-xml")], answers


# -- repeats


async def test_a_repeat_is_answered_with_the_first_outcome_and_has_no_effect() -> None:
    """While it runs, when it has ended, and when the domain is gone; by name or by UUID."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        first = await here.api("p", "web1", "define-xml", {"id": "k1", "args": {"xml": xml()}})
        repeats = [await here.api("p", "web1", "define-xml", {"id": "k1", "args": {"xml": xml()}})]
        gone = await here.api("p", "web1", "undefine", {"id": "k2"})
        await here.until(lambda: not worker.domains)
        repeats.append(await here.api("p", "web1", "define-xml", {"id": "k1", "args": {"xml": xml()}}))
        regone = [await here.api("p", domain, "undefine", {"id": "k2"}) for domain in ("web1", first["domain"]["uuid"])]
        assert [first, first] == repeats
        assert [gone, gone] == regone
        assert [("p", "k1", "define-xml"), ("p", "k2", "undefine")] == worker.ran
        assert {("p", "k1"): ["command.succeeded"], ("p", "k2"): ["command.succeeded"]} == await here.terminals()


async def test_a_repeat_while_the_first_runs_waits_for_its_end() -> None:
    """Both get it."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        worker.gate["start"] = anyio.Event()
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await here.api("p", ONE, "start", {"id": "k1"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await here.until(lambda: len(worker.received) == 2)
            tasks.start_soon(ask)
            await anyio.sleep(0.02)
            worker.gate["start"].set()
        assert answers[0] == answers[1]
        assert [("p", "k1", "start")] == worker.ran[1:]


@pytest.mark.parametrize("domain", ["web1", ONE])
@pytest.mark.parametrize("verb", ["define-xml", "undefine"])
async def test_a_coordinator_that_knows_nothing_finds_the_first_outcome(verb: str, domain: str) -> None:
    """In the log of events or in a node's ledger; the owner record is gone, and the command would have an effect."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator("c1")
        command = {"id": "k1", "args": {"xml": xml("web1", ONE)}}
        answers = {"define-xml": await here.api("p", domain, "define-xml", command)}
        answers["undefine"] = await here.api("p", domain, "undefine", {"id": "k2"})

        async def released() -> bool:
            return await here.owner(ONE) is None

        await here.until(released)
        await first.kill()
        await here.coordinator("c2")
        again = await here.api("p", domain, verb, command if verb == "define-xml" else {"id": "k2"})
        assert answers[verb] == again
        assert 2 == len(worker.ran)
        assert {("p", "k1"): ["command.succeeded"], ("p", "k2"): ["command.succeeded"]} == await here.terminals()


async def test_a_domain_made_and_gone_is_not_made_again_elsewhere_by_a_repeat() -> None:
    """Though nobody remembers, and another node has more memory now."""
    async with world() as here:
        one = await here.worker("n1")
        first = await here.coordinator("c1")
        command = {"id": "k1", "args": {"xml": xml("web1")}}
        answer = await here.api("p", ONE, "define-xml", command)
        await here.api("p", ONE, "undefine", {"id": "k2"})

        async def released() -> bool:
            return await here.owner(ONE) is None

        await here.until(released)
        await first.kill()
        two = await here.worker("n2", free_kib=10_000_000)
        await here.coordinator("c2")
        assert answer == await here.api("p", ONE, "define-xml", command)
        assert [2, 0] == [len(one.ran), len(two.ran)]


@pytest.mark.parametrize("second", [("web1", "destroy", None), ("web1", "start", 5.0), ("web2", "start", None), (TWO, "start", None)])
async def test_an_id_of_another_command_is_a_conflict_that_ends_under_an_id_of_its_own(second: tuple[str, str, float | None]) -> None:
    """Another verb, body or domain; the answer is no end of the first command, whose outcome stays what it is."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here, "web1", ONE)
        await made(here, "web2", TWO)
        first = await here.api("p", "web1", "start", {"id": "k1"})
        domain, verb, timeout_s = second
        other = await here.api("p", domain, verb, {"id": "k1"} | ({} if timeout_s is None else {"timeout_s": timeout_s}))
        assert ("conflict", "none", False) == said(other)
        ended = await here.terminals()
        assert ("k1", ["command.succeeded"]) == (other["id"], ended["p", "k1"])
        assert ["command.failed"] in [ends for (_, id), ends in ended.items() if id.startswith("m-api-")]
        assert first == await here.api("p", "web1", "start", {"id": "k1"})
        assert ["start"] == [verb for _, _, verb in worker.ran[2:]]


async def test_where_only_the_worker_knows_the_id_its_verdict_is_the_answer() -> None:
    """It ends the second message, not the first command."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator("c1")
        await made(here)
        sent = Outgoing(SUBJECTS.run("n1", "p", ONE, "start"), b"", {"Virt-Id": "k1"})
        await here.bus.append(sent)
        await here.until(lambda: here.workers["n1"].done)
        await (await here.coordinator("c2")).stop()
        answer = await here.api("p", ONE, "destroy", {"id": "k1"})
        assert ("k1", "conflict", "none", False) == (answer["id"], *said(answer))


async def test_a_malformed_repeat_is_answered_with_the_first_refusal() -> None:
    """And what is malformed under the id of another command ends under one of its own."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await made(here)
        first, again = [await here.api("p", ONE, "start", {"id": "k1", "nonsense": 1}) for _ in range(2)]
        await here.api("p", ONE, "start", {"id": "k2"})
        other = await here.api("p", ONE, "start", {"id": "k2", "nonsense": 1})
        assert first == again
        assert ("k1", "invalid") == (first["id"], said(first)[0])
        assert ("k2", "invalid", "none", False) == (other["id"], *said(other))
        assert {"k1": ["command.failed"], "k2": ["command.succeeded"]} == {
            id: ends for (_, id), ends in (await here.terminals()).items() if id.startswith("k")
        }


# -- waiting


async def test_a_result_that_was_not_heard_is_found_in_the_log() -> None:
    """Results may be missed, events are not."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        worker.mute = True
        answer = await here.api("p", ONE, "start", {"id": "k1"})
        assert ("k1", True) == (answer["id"], answer["ok"])


async def test_after_a_reconnect_the_end_is_found_at_once() -> None:
    """Whoever waits is looked up, however long ago the last look was."""
    async with world() as here:
        worker = await here.worker("n1")
        running = await here.coordinator(pace=Pace(look=60.0, retry=0.01, tick=0.05, renew=0.05))
        await made(here)
        worker.gate["start"] = anyio.Event()
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await here.api("p", ONE, "start", {"id": "k1"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await here.until(lambda: len(worker.received) == 2)
            here.broker.cut(running.bus)
            worker.gate["start"].set()
            await here.until(lambda: len(worker.ran) == 2)
            here.broker.restore(running.bus)
        assert [True] == [answer["ok"] for answer in answers]


async def test_an_answer_for_want_of_time_is_not_the_end() -> None:
    """The end is still to come, and the same id asks for it."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        worker.gate["start"] = anyio.Event()
        command = {"id": "k1", "timeout_s": 0.05}
        early = await here.api("p", ONE, "start", command)
        worker.gate["start"].set()
        await here.until(lambda: len(worker.ran) == 2)
        late = await here.api("p", ONE, "start", command)
        assert ("deadline", "unknown", False) == said(early)
        assert (True, True) == (late["ok"], late.get("final", True))


async def test_a_silent_node_is_told_at_once_and_keeps_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the log for when the node is back; that answer is not the end."""
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        worker.gate["start"] = anyio.Event()
        await worker.leave()
        answer = await here.api("p", ONE, "start", {"id": "k1"})
        worker.gate["start"].set()
        await here.until(lambda: len(worker.ran) == 2)
        assert ("node_unavailable", "unknown", False) == said(answer)
        assert ["command.succeeded"] == (await here.terminals())["p", "k1"]


async def test_in_a_young_session_a_missing_lease_says_nothing() -> None:
    """The command is routed and waited for."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        await worker.leave()
        assert (await here.api("p", ONE, "start"))["ok"]


@pytest.mark.parametrize(("living", "code"), [(True, "busy"), (False, "node_unavailable")])
async def test_a_node_with_too_much_waiting_is_not_given_more(monkeypatch: pytest.MonkeyPatch, living: bool, code: str) -> None:
    """Whether or not it lives; what ends makes room."""
    monkeypatch.setattr(admission, "MAX_WAITING", 2)
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        worker.gate["reset"] = anyio.Event()
        await here.until(lambda: worker.done)
        if not living:
            await worker.leave()
        for number in range(3):
            await here.cmd("p", ONE, "reset", {"id": f"k{number}"})
        await here.until(lambda: len(worker.received) == 4)
        refused = await here.api("p", ONE, "reset", {"id": "k9"})
        worker.gate.pop("reset").set()
        await here.until(lambda: len(worker.ran) == 4)
        assert (code, "none", True) == said(refused)
        assert not living or (await here.api("p", ONE, "reset", {"id": "k10"}))["ok"]


async def test_a_domain_that_was_refused_for_want_of_room_leaves_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was placed, and then not routed."""
    monkeypatch.setattr(admission, "MAX_WAITING", -1)
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        assert ("busy", "none", True) == said(await made(here))
        assert await here.owner(ONE) is None


async def test_a_full_log_is_busy() -> None:
    """Nothing was stored, so it ends here."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await made(here)
        full = [config for config in here.configs if config.name == SUBJECTS.log_run]
        await here.bus.provision([here.smaller(full[0])])
        answer = await here.api("p", ONE, "start", {"id": "k1"})
        assert ("busy", "none", True) == said(answer)
        assert ["command.failed"] == (await here.terminals())["p", "k1"]


async def test_while_a_domain_is_being_made_nothing_else_is_routed_for_it() -> None:
    """By UUID or by name; whose deadline passes meanwhile has expired, the others go on."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        worker.gate["define-xml"] = anyio.Event()
        answers: dict[str, Any] = {}

        async def ask(domain: str, verb: str, id: str, **body: Any) -> None:
            answers[id] = await here.api("p", domain, verb, {"id": id, **body})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: ask(ONE, "define-xml", "k1", args={"xml": xml("web1")}))
            await here.until(lambda: worker.received)
            tasks.start_soon(lambda: ask(ONE, "start", "k2"))
            tasks.start_soon(lambda: ask("web1", "reset", "k3"))
            await ask("web1", "reboot", "k4", timeout_s=0.05)
            assert 1 == len(worker.received)
            worker.gate["define-xml"].set()
        assert ("deadline", "none", True) == said(answers["k4"])
        assert ["command.expired"] == (await here.terminals())["p", "k4"]
        assert ["k1", "k2", "k3"] == [id for _, id, _ in worker.ran]


@pytest.mark.parametrize("domain", [ONE, "web1"])
async def test_a_domain_that_another_coordinator_is_making_is_waited_for(domain: str) -> None:
    """Its owner record tells of it, by UUID and by name."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator("c1")
        worker.gate["define-xml"] = anyio.Event()
        answers: dict[str, Any] = {}

        async def ask(domain: str, verb: str, body: Any) -> None:
            answers[verb] = await here.api("p", domain, verb, body)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, ONE, "define-xml", {"id": "k1", "args": {"xml": xml("web1")}})
            await here.until(lambda: worker.received)
            await first.kill()
            await here.coordinator("c2")
            tasks.start_soon(ask, domain, "start", None)
            await anyio.sleep(0.05)
            assert 1 == len(worker.received)
            worker.gate["define-xml"].set()
            await here.until(lambda: "start" in answers)
            tasks.cancel_scope.cancel()
        assert answers["start"]["ok"], answers


# -- what is nowhere, and what nobody made


async def test_undefining_what_is_provably_nowhere_succeeds_unchanged() -> None:
    """By UUID or by name."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        answers = [await here.api("p", domain, "undefine", {"id": domain}) for domain in ("web1", ONE)]
        assert [(True, False), (True, False)] == [(answer["ok"], answer["changed"]) for answer in answers]
        assert ["command.succeeded"] == (await here.terminals())["p", ONE]


async def test_with_a_silent_node_nothing_is_provably_nowhere() -> None:
    """It may hold the domain."""
    async with world() as here:
        await (await here.worker("n1")).leave()
        await here.coordinator()
        answer = await here.api("p", ONE, "undefine")
        assert ("node_unavailable", "none", True) == said(answer)
        assert "n1" in answer["error"]["message"]


async def test_a_domain_that_nobody_made_is_adopted_and_obeys() -> None:
    """Where a node shows it, its record is made."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        await here.coordinator()
        answer = await here.api("p", "web1", "start")
        owner = await here.owner(ONE)
        assert answer["ok"]
        assert owner is not None
        assert ("n1", "p", 1) == (owner.node, owner.project, owner.epoch)


async def test_one_uuid_on_two_nodes_is_a_conflict_and_told_once() -> None:
    """No record is made until one of them is gone; a later leader does not tell again."""
    async with world() as here:
        one, two = await here.worker("n1"), await here.worker("n2")
        await one.show("p", ONE, "web1")
        await two.show("p", ONE, "web1")
        first = await here.coordinator("c1")
        answers = [await here.api("p", ONE, verb) for verb in ("start", "undefine")]

        async def told() -> list[Any]:
            return [event for event in await here.events() if event.name == "health.duplicate-domain"]

        await here.until(told)
        await first.stop()
        second = await here.coordinator("c2")
        await here.until(second.leads)
        await anyio.sleep(0.1)
        assert ["conflict", "conflict"] == [said(answer)[0] for answer in answers]
        assert [["n1", "n2"]] == [codec.decode(codec.encode(event.data), dict)["nodes"] for event in await told()]
        assert await here.owner(ONE) is None
        await two.hide(ONE)
        assert (await here.api("p", ONE, "start"))["ok"]


async def test_a_domain_that_was_not_made_leaves_no_record() -> None:
    """So it can be made elsewhere at once."""
    async with world() as here:
        worker = await here.worker("n1", free_kib=10)
        await here.worker("n2", free_kib=1)
        await here.coordinator()
        worker.fail["create-xml"] = HypervisorRefused("no")
        first = await here.api("p", ONE, "create-xml", {"args": {"xml": xml("web1"), "node": "n1"}})
        second = await here.api("p", ONE, "create-xml", {"args": {"xml": xml("web1"), "node": "n2"}})
        assert ("hypervisor", "none", True) == said(first)
        assert ("n2", True) == (second["node"], second["ok"])


async def test_a_domain_whose_making_is_in_doubt_keeps_its_record() -> None:
    """It may show itself yet, and must not be made a second time elsewhere."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.worker("n2")
        await here.coordinator()
        worker.fail["create-xml"] = HypervisorRefused("no answer", outcome="unknown")
        await here.api("p", ONE, "create-xml", {"args": {"xml": xml("web1"), "node": "n1"}})
        await anyio.sleep(0.1)
        other = await here.api("p", ONE, "create-xml", {"args": {"xml": xml("web1"), "node": "n2"}})
        assert ("conflict", "none", True) == said(other)


async def test_a_domain_with_a_former_node_asks_the_log_before_it_acts() -> None:
    """What was done there is not done again here."""
    async with world() as here:
        one, two = await here.worker("n1"), await here.worker("n2")
        first = await here.coordinator("c1")
        await made(here, node="n1")
        started = await here.api("p", ONE, "start", {"id": "k1"})
        await here.api("p", ONE, "undefine", {"id": "k2"})

        async def released() -> bool:
            return await here.owner(ONE) is None

        await here.until(released)
        await made(here, node="n2")
        await first.kill()
        await here.coordinator("c2")
        again = await here.api("p", ONE, "start", {"id": "k1"})
        owner = await here.owner(ONE)
        assert owner is not None
        assert ["n1"] == [former.node for former in owner.former]
        assert started == again
        assert [3, 1] == [len(one.ran), len(two.ran)]


async def test_requests_without_a_reader_of_the_answer_are_done_all_the_same() -> None:
    """An answer is a courtesy."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        await here.bus.publish(SUBJECTS.api("p", ONE, "start"), b"")
        await here.until(lambda: len(worker.ran) == 2)


async def test_what_others_write_into_the_buckets_breaks_nothing() -> None:
    """An unreadable value is no value, a strange key no domain."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await here.bucket("domains").put("strange", b"{}")
        await here.bucket("domains").put(domain_key("n1", "p", ONE), b"nonsense")
        await here.bucket("nodes").put("n2", b"[]")
        assert "not_found" == said(await here.api("p", ONE, "start"))[0]
        await forget_leader(here)
