"""The client keeps its promises over a bus that fails: one effect, no event missed or given twice, errors by their code."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from orchestrator import client as module
from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.memory.reader import MemoryReader
from orchestrator.bus.port import Headers, LogConfig, Message, Outgoing, Start, Unavailable, Uncertain
from orchestrator.client import Client
from orchestrator.event import Lifecycle
from orchestrator.feed import Feed
from orchestrator.protocol import codec
from orchestrator.protocol.command import answer, refusal
from orchestrator.protocol.domain import Observed, State
from orchestrator.protocol.error import BY_CODE, Busy, Conflict, DeadlineExceeded, Internal, Invalid, NodeUnavailable, NotFound
from orchestrator.protocol.event import event
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.token import derived_uuid
from orchestrator.protocol.verb import VERBS, Verb
from orchestrator.verbs import Verbs

pytestmark = pytest.mark.anyio

SUBJECTS = Subjects()
UUID = "6f1c1b5e-0000-4000-8000-000000000001"
OTHER = "6f1c1b5e-0000-4000-8000-000000000002"
XML = "<domain type='test'><memory>1024</memory><os><type>hvm</type></os></domain>"

Answer = Callable[[Message], Awaitable[tuple[bytes, Headers]]]


def observed(uuid: str, name: str, node: str = "n1") -> Observed:
    """Return a running domain."""
    return Observed(
        uuid=uuid, name=name, project="default", node=node, hypervisor="test:///default", type="test", state="running", reason="booted",
        persistent=True, autostart=False, vcpus=1, memory_kib=1024, labels={}, generation=0, incarnation=None, role="owner",
        epoch="01JD0000000000000000000000", sequence="0" * 16, updated="2026-01-01T00:00:00Z",
    )


def done(message: Message, **more: Any) -> tuple[bytes, Headers]:
    """Answer a command as a worker that carried it out."""
    verb = SUBJECTS.parse_addressed(message.subject).verb
    asked = msgspec.json.decode(message.body)
    result = {"id": asked["id"], "verb": verb, "ok": True, "changed": True, "node": "n1", "project": "default", "duration_ms": 1.0}
    return codec.encode(result | more), {}


@asynccontextmanager
async def client_of(broker: MemoryBroker, **options: Any) -> AsyncIterator[tuple[Client, MemoryBus]]:
    """Enter a bus of `broker` and give a client over it."""
    async with MemoryBus(broker) as bus:
        await bus.link.up()
        yield Client(bus, SUBJECTS, **options), bus


@asynccontextmanager
async def served(broker: MemoryBroker, subject: str, respond: Answer) -> AsyncIterator[None]:
    """Let `respond` answer what is asked under `subject`."""
    async with MemoryBus(broker) as bus:
        await bus.link.up()
        async with bus.serve("virt-api", subject, respond, version="0", metadata={}):
            yield


async def logs(broker: MemoryBroker) -> None:
    """Make the logs that a client touches."""
    async with MemoryBus(broker) as bus:
        await bus.link.up()
        await bus.provision(
            [
                LogConfig(name=SUBJECTS.log_cmd, subjects=(SUBJECTS.cmds,), max_bytes=4096, discard_new=True),
                LogConfig(name=SUBJECTS.log_evt, subjects=(SUBJECTS.events,)),
            ]
        )


async def test_a_command_is_answered_with_its_result() -> None:
    """`call` sends id, arguments and time on the verb's subject and returns what came back."""
    asked: list[Message] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message)
        return done(message, domain={"uuid": UUID, "name": "web1", "state": "running"})

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        result = await client.call("web1", "set-autostart", {"enabled": False}, timeout=5, id="one")
    assert result.domain is not None
    assert (result.id, result.domain.state) == ("one", "running")
    assert [message.subject for message in asked] == ["virt.v1.api.default.web1.set-autostart"]
    assert msgspec.json.decode(asked[0].body) == {"id": "one", "args": {"enabled": False}, "timeout_s": 5.0}


async def test_a_failure_is_raised_as_the_error_of_its_code() -> None:
    """`call` raises what the command ended with; `attempt` returns it."""
    failure = {"code": "not_found", "message": "no such domain", "retryable": False, "outcome": "none"}

    async def respond(message: Message) -> tuple[bytes, Headers]:
        return done(message, ok=False, error=failure)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        with pytest.raises(NotFound, match="no such domain"):
            await client.call("web1", "start")
        result = await client.attempt("web1", "start")
    assert (result.ok, result.event) == (False, "command.failed")


async def test_an_answer_that_is_not_final_leaves_the_outcome_unknown() -> None:
    """A coordinator that could not wait any longer says so; the command may still succeed."""

    async def respond(_: Message) -> tuple[bytes, Headers]:
        return refusal(DeadlineExceeded("the node did not end it in time", outcome="unknown"), final=False)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        with pytest.raises(DeadlineExceeded) as raised:
            await client.attempt("web1", "start")
    assert raised.value.outcome == "unknown"


async def test_a_request_lost_with_the_session_is_repeated_under_the_same_id() -> None:
    """The broker dies after it took the request in; the same bytes go out again once it is back."""
    asked: list[bytes] = []
    broker = MemoryBroker()

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message.body)
        if len(asked) == 1:
            broker.stop()
            broker.start()
        return done(message)

    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        result = await client.call("web1", "start")
    assert asked == [asked[0]] * 2
    assert result.id == msgspec.json.decode(asked[0])["id"]


async def test_a_request_lost_with_its_coordinator_is_repeated_under_the_same_id() -> None:
    """A coordinator that took the request in and died never answers; the next one gets the same bytes."""
    asked: list[bytes] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message.body)
        if len(asked) == 1:
            await anyio.sleep_forever()
        return done(message)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker, repeat_s=0.01) as (client, _):
        await client.call("web1", "start")
    assert asked == [asked[0]] * 2


async def test_a_request_that_nobody_takes_has_no_effect_and_says_so() -> None:
    """Without a coordinator the patience ends long before the command's own time."""
    async with client_of(MemoryBroker(), patience_s=0.0) as (client, _):
        with pytest.raises(NodeUnavailable, match="no coordinator answers") as raised:
            await client.call("web1", "start")
    assert (raised.value.outcome, raised.value.retryable) == ("none", True)


async def test_an_answer_that_cannot_be_read_is_an_internal_error() -> None:
    """What is no JSON of ours is told as such, with the effect unknown."""

    async def respond(_: Message) -> tuple[bytes, Headers]:
        return b"oops", {}

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        with pytest.raises(Internal, match="cannot be read") as raised:
            await client.call("web1", "start")
    assert raised.value.outcome == "unknown"


@pytest.mark.parametrize(
    ("project", "domain", "verb", "id"),
    [
        ("a.b", "web1", "start", None),
        ("default", "web1", "fly", None),
        ("default", "web1", "start", "m-1"),
        ("default", "web1", "get", None),
    ],
)
async def test_what_cannot_be_valid_is_refused_before_it_is_sent(project: str, domain: str, verb: str, id: str | None) -> None:
    """Bad tokens, unknown verbs and reserved ids never reach the broker."""
    async with client_of(MemoryBroker(), patience_s=0.0) as (client, _):
        with pytest.raises(Invalid):
            await client.call(domain, verb, id=id, project=project)


async def test_a_name_that_is_no_token_is_addressed_by_uuid() -> None:
    """`my vm` cannot stand in a subject, so the client looks its UUID up."""
    asked: list[str] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message.subject)
        if message.subject.endswith(".domains"):
            return answer({"domains": [observed(UUID, "my vm"), observed(OTHER, "other")]}), {}
        return done(message)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        await client.call("my vm", "start")
        with pytest.raises(NotFound):
            await client.call("no vm", "start")
    assert asked == ["virt.v1.api.default._.domains", f"virt.v1.api.default.{UUID}.start", "virt.v1.api.default._.domains"]


async def test_a_name_that_two_domains_have_is_a_conflict() -> None:
    """The client does not choose between them."""

    async def respond(_: Message) -> tuple[bytes, Headers]:
        return answer({"domains": [observed(UUID, "my vm"), observed(OTHER, "my vm")]}), {}

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        with pytest.raises(Conflict, match=UUID):
            await client.get("my vm")


async def test_a_new_domain_whose_name_is_no_token_gets_the_uuid_of_its_command() -> None:
    """So a repeat under the same id is the same domain; the name goes into the XML."""
    asked: list[Message] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message)
        return (answer({"domains": []}), {}) if message.subject.endswith(".domains") else done(message)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        await client.call("my vm", "create-xml", {"xml": XML}, id="one")
    uuid = derived_uuid("default", "one")
    assert asked[-1].subject == f"virt.v1.api.default.{uuid}.create-xml"
    assert f"<uuid>{uuid}</uuid><name>my vm</name>" in msgspec.json.decode(asked[-1].body)["args"]["xml"]


async def test_a_list_is_read_to_its_last_page() -> None:
    """`next` of one page is `after` of the following."""
    asked: list[str] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(msgspec.json.decode(message.body)["args"]["after"])
        return answer({"domains": [observed(OTHER, "b")]} if asked[-1] else {"domains": [observed(UUID, "a")], "next": "x"}), {}

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        found = await client.domains()
    assert [domain.name for domain in found] == ["a", "b"]
    assert asked == ["", "x"]


async def test_xml_and_figures_are_asked_of_the_node_that_has_the_domain() -> None:
    """The coordinator says where the domain is; its node answers."""

    async def respond(message: Message) -> tuple[bytes, Headers]:
        if message.subject.endswith(".get"):
            return answer({"domain": observed(UUID, "web1", "n7")}), {}
        return answer({"xml": "<domain/>"} if message.subject.endswith(".xml") else {"stats": {"vcpu.current": 1}}), {}

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), served(broker, SUBJECTS.asks("n7"), respond), client_of(broker) as (client, _):
        assert await client.xml("web1") == "<domain/>"
        assert await client.stats("web1") == {"vcpu.current": 1}


async def test_a_posted_command_is_in_the_log_when_its_id_is_returned() -> None:
    """`post` waits for storage and for nothing else."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, bus):
        id = await client.post("web1", "start")
        last = await bus.last(SUBJECTS.log_cmd, SUBJECTS.cmds)
    assert last is not None
    assert (last.subject, msgspec.json.decode(last.body)) == ("virt.v1.cmd.default.web1.start", {"id": id})


async def test_a_post_of_unknown_outcome_is_repeated_under_the_same_id() -> None:
    """The broker stores it and the acknowledgement is lost: the second copy says the same."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, bus), anyio.create_task_group() as tasks:
        broker.cut(bus, on_answer=True)

        async def come_back() -> None:
            await bus.link.down(bus.link.session)
            broker.restore(bus)

        tasks.start_soon(come_back)
        id = await client.post("web1", "start")
        reader = await bus.reader(SUBJECTS.log_cmd, "test", SUBJECTS.cmds, Start())
        stored = await reader.take(10)
    assert [msgspec.json.decode(message.body) for message in stored] == [{"id": id}] * 2


async def test_a_full_log_is_busy_and_nothing_is_stored() -> None:
    """The log of commands refuses instead of forgetting."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, _):
        with pytest.raises(Busy):
            await client.post("web1", "define-xml", {"xml": "x" * 5000})


def told(
    number: int,
    *,
    domain: str = UUID,
    name: str = "web1",
    node: str = "n1",
    kind: str = "lifecycle.started",
    project: str = "default",
    data: dict[str, Any] | None = None,
) -> Outgoing:
    """Return an event to store."""
    value = event(
        prefix="virt", name=kind, source=f"/virt/nodes/{node}", node=node, project=project, subject=domain, time="2026-01-01T00:00:00Z",
        epoch="01JD0000000000000000000000", sequence=number, previous=0, data=data or {}, domainname=name,
    )
    return Outgoing(SUBJECTS.evt(node, project, domain, kind), codec.encode(value))


async def take(feed: Feed, count: int) -> list[int]:
    """Return the sequences of the next `count` events."""
    taken: list[int] = []
    async for each in feed:
        taken.append(int(each.sequence))
        if len(taken) == count:
            break
    return taken


async def test_events_begin_with_what_is_stored_after_the_feed_was_made() -> None:
    """Neither what was there before, nor only what comes after the first iteration."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, bus):
        await bus.append(told(1))
        feed = client.events()
        await feed.begin()
        await bus.append(told(2))
        assert await take(feed, 1) == [2]


async def test_no_event_is_missed_or_given_twice_over_a_broken_session() -> None:
    """The reader is made anew behind the last event given, though it was stored while the reader's session was down."""
    broker = MemoryBroker()
    await logs(broker)
    taken: list[int] = []
    async with client_of(broker) as (client, bus), MemoryBus(broker) as other:
        await other.link.up()
        feed = client.events()
        await feed.begin()
        await other.append(told(1))
        async for each in feed:
            taken.append(int(each.sequence))
            if len(taken) == 1:
                broker.cut(bus)
                await other.append(told(2))
                await other.append(told(3))
                broker.restore(bus)
            if len(taken) == 3:
                break
    assert taken == [1, 2, 3]


async def test_a_feed_goes_on_after_the_broker_restarted() -> None:
    """The broker forgets readers when it restarts; the feed makes its own again."""
    broker = MemoryBroker()
    await logs(broker)
    taken: list[int] = []
    async with client_of(broker) as (client, bus):
        feed = client.events()
        await feed.begin()
        await bus.append(told(1))
        async for each in feed:
            taken.append(int(each.sequence))
            if len(taken) == 2:
                break
            broker.stop()
            broker.start()
            await bus.link.up()
            await bus.append(told(2))
    assert taken == [1, 2]


async def test_a_feed_can_begin_behind_a_sequence_of_the_log() -> None:
    """`Feed.sequence` of one feed is `after` of the next."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, bus):
        for number in (1, 2, 3):
            await bus.append(told(number))
        first = client.events(since=0.0)
        assert await take(first, 2) == [1, 2]
        assert await take(client.events(after=first.sequence), 1) == [3]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"node": "n2"}, [2]),
        ({"domain": UUID}, [1, 2]),
        ({"domain": UUID.upper()}, [1, 2]),
        ({"domain": "db"}, [3]),
        ({"kinds": ("lifecycle",)}, [1, 3]),
        ({"kinds": ("lifecycle.stopped", "reboot")}, [2, 3]),
    ],
)
async def test_a_feed_gives_only_what_is_wanted(wanted: dict[str, Any], expected: list[int]) -> None:
    """All filters given must match; a kind matches whole tokens."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, bus):
        await bus.append(told(1))
        await bus.append(told(2, node="n2", kind="reboot"))
        await bus.append(told(3, domain=OTHER, name="db", kind="lifecycle.stopped"))
        # fits every filter, so that what was let through before it shows
        await bus.append(told(4, node="n2", name="db", kind="lifecycle.stopped"))
        assert await take(client.events(since=0.0, **wanted), len(expected) + 1) == [*expected, 4]


async def test_what_is_no_event_is_passed_over_and_counted() -> None:
    """One bad message must not end all that follow the log."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, bus):
        await bus.append(Outgoing(SUBJECTS.evt("n1", "default", UUID, "lifecycle.started"), b"oops"))
        await bus.append(told(2))
        feed = client.events(since=0.0)
        assert await take(feed, 1) == [2]
    assert feed.skipped == 1


class Mute(MemoryBus):
    """A bus whose user may make no reader: such a request is never answered."""

    async def reader(self, log: str, name: str, subjects: str, start: Start) -> MemoryReader:
        """Fail as a request without an answer does."""
        raise Uncertain(f"no answer to {name} on {log} {subjects} {start}")


async def test_a_feed_that_may_not_read_says_so() -> None:
    """Only what worked once is tried again for ever."""
    broker = MemoryBroker()
    await logs(broker)
    async with Mute(broker) as bus:
        await bus.link.up()
        with pytest.raises(Uncertain):
            await take(Client(bus).events(), 1)


async def test_a_post_without_a_broker_gives_up_within_the_patience() -> None:
    """Nothing was stored, and the caller is told that the broker is away."""
    broker = MemoryBroker()
    async with client_of(broker, patience_s=0.0) as (client, bus):
        broker.cut(bus)
        with pytest.raises(Unavailable):
            await client.post("web1", "start")
        with pytest.raises(Unavailable):
            await client.call("web1", "start")


async def test_a_command_too_large_is_refused_before_it_is_sent() -> None:
    """The wire allows half a mebibyte."""
    async with client_of(MemoryBroker(), patience_s=0.0) as (client, _):
        with pytest.raises(Invalid, match="at most 524288"):
            await client.call("web1", "create-xml", {"xml": "x" * 600_000})


async def test_no_answer_in_time_leaves_the_outcome_unknown() -> None:
    """Somebody took the request and never answered, whenever it was repeated."""

    async def respond(_: Message) -> tuple[bytes, Headers]:
        await anyio.sleep_forever()
        raise AssertionError

    times = iter(range(0, 1000, 20))
    clock = {"repeat_s": 0.01, "monotonic": lambda: float(next(times))}
    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker, **clock) as (client, _):
        with pytest.raises(DeadlineExceeded) as raised:
            await client.call("web1", "start")
    assert raised.value.outcome == "unknown"


@pytest.mark.parametrize("verb", [verb for verb in VERBS.values() if verb.run is None], ids=lambda verb: str(verb.name))
async def test_each_verb_has_a_method_with_its_arguments(verb: Verb) -> None:
    """A verb's parameters are the domain, the fields of its arguments in their order, and the options of all commands."""
    method = getattr(Client, verb.name.replace("-", "_"))
    assert inspect.getdoc(method)
    if verb.kind == "verb":
        fields = msgspec.structs.fields(verb.args)
        parameters = inspect.signature(method).parameters
        assert ["self", "domain", *(field.name for field in fields), "options"] == list(parameters)
        assert [field.required for field in fields] == [parameters[field.name].default is inspect.Parameter.empty for field in fields]


async def test_there_is_no_method_without_a_verb() -> None:
    """Beside the verbs there is only `call`, for verbs of one's own."""
    methods = {name.replace("_", "-") for name in vars(Verbs) if not name.startswith("_")}
    assert {"call"} == methods - {verb.name for verb in VERBS.values() if verb.kind == "verb"}


async def test_a_verbs_method_sends_its_arguments() -> None:
    """The same as `call` with the struct of the registry."""
    asked: list[Message] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message)
        return done(message)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker, project="shop") as (vm, _):
        await vm.create_xml("web1", XML, node="n1", id="a", timeout=9)
        await vm.set_autostart("web1", False, id="b", project="other")
        await vm.start("web1", id="c", actor="me")
    assert [message.subject for message in asked] == [
        "virt.v1.api.shop.web1.create-xml", "virt.v1.api.other.web1.set-autostart", "virt.v1.api.shop.web1.start",
    ]
    assert [msgspec.json.decode(message.body) for message in asked] == [
        {"id": "a", "args": {"xml": XML, "node": "n1"}, "timeout_s": 9},
        {"id": "b", "args": {"enabled": False}},
        {"id": "c", "actor": "me"},
    ]


async def test_a_cancel_tells_how_it_ended() -> None:
    """It is a command of its own about another one; the domain only helps to find that."""
    asked: list[Message] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message)
        if len(asked) > 2:
            return done(message, ok=False, error={"code": "conflict", "message": "begun"})
        return done(message, result={"id": "one", "state": "cancelled"})

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (vm, _):
        cancelled = await vm.cancel("one", domain="web1")
        await vm.cancel("one", domain="my vm")
        with pytest.raises(Conflict, match="begun"):
            await vm.cancel("one")
    assert {"id": "one", "state": "cancelled"} == cancelled.result
    tokens = [message.subject.split(".")[4:] for message in asked]
    assert [["web1", "cancel"], ["_", "cancel"], ["_", "cancel"]] == tokens
    assert [{"id": "one"}] * 3 == [msgspec.json.decode(message.body)["args"] for message in asked]


async def test_each_error_can_be_imported_where_the_client_is() -> None:
    """Who calls need not know where the wire's errors live."""
    assert set(module.__all__) >= {error.__name__ for error in BY_CODE.values()} | {"BusError", "WireError"}
    assert [] == [name for name in module.__all__ if not hasattr(module, name)]


async def test_a_verb_of_an_installed_package_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of this process learns it when it is first asked for."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [Loaded("trim")])

    async def respond(message: Message) -> tuple[bytes, Headers]:
        return done(message)

    broker = MemoryBroker()
    try:
        async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (vm, _):
            assert "trim" == (await vm.call("web1", "trim")).verb
    finally:
        VERBS.pop("trim", None)


class Loaded(msgspec.Struct, frozen=True):
    """An entry point."""

    name: str

    def load(self) -> object:
        """Give the verb."""
        return Verb(name=self.name, summary="give unused blocks back")


class Stage:
    """A domain that a test moves, and the coordinator that shows it. `looks` counts how often it was asked for."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.domain: Observed | None = observed(UUID, "web1")
        self.looks = 0
        self.looked = anyio.Event()

    async def respond(self, _: Message) -> tuple[bytes, Headers]:
        """Show the domain."""
        self.looks += 1
        shown = refusal(NotFound("no such domain")) if self.domain is None else (answer({"domain": self.domain}), {})
        looked, self.looked = self.looked, anyio.Event()
        looked.set()
        return shown

    def move(self, state: State | None) -> None:
        """Put the domain into a state; None: it is gone. Nobody is told."""
        self.domain = None if state is None else msgspec.structs.replace(observed(UUID, "web1"), state=state)

    def tell(self, uuid: str = UUID) -> None:
        """Tell an event of a domain."""
        self.broker.publish(Message(SUBJECTS.evt("n1", "default", uuid, "lifecycle.stopped"), b""))


@asynccontextmanager
async def staged() -> AsyncIterator[tuple[Stage, Client]]:
    """Give a domain and a client that can wait for it."""
    broker = MemoryBroker()
    stage = Stage(broker)
    async with served(broker, SUBJECTS.apis, stage.respond), client_of(broker) as (vm, _):
        yield stage, vm


async def test_a_state_that_holds_is_not_waited_for() -> None:
    """One look is enough."""
    async with staged() as (stage, vm):
        assert "running" == (await vm.wait("web1", state=("paused", "running"))).state
    assert 1 == stage.looks


async def test_a_change_right_after_the_first_look_is_seen() -> None:
    """The look that counts comes after the subscription, so nothing lies between them."""
    async with staged() as (stage, vm), anyio.create_task_group() as tasks:

        async def stop() -> None:
            await stage.looked.wait()
            stage.move("shutoff")

        tasks.start_soon(stop)
        with anyio.fail_after(5):
            assert "shutoff" == (await vm.wait("web1", state="shutoff")).state
    assert 2 == stage.looks


@pytest.mark.parametrize("state", ["shutoff", None])
async def test_an_event_is_a_reason_to_look(state: State | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing but events would make it look again. `None` waits until the domain is gone."""
    monkeypatch.setattr("orchestrator.waiting._LATE_S", 1000.0)
    monkeypatch.setattr("orchestrator.waiting._SOON_S", 1000.0)
    async with staged() as (stage, vm), anyio.create_task_group() as tasks:

        async def stop() -> None:
            await anyio.wait_all_tasks_blocked()
            stage.move(state)
            stage.tell(OTHER)
            stage.tell()

        tasks.start_soon(stop)
        with anyio.fail_after(5):
            found = await vm.wait("web1", state=state)
    assert state == (None if found is None else found.state)


async def test_a_domain_that_is_yet_to_be_made_is_waited_for() -> None:
    """Also without any event, since one may be lost with its session."""
    async with staged() as (stage, vm), anyio.create_task_group() as tasks:
        stage.move(None)

        async def make() -> None:
            for _ in range(3):
                await stage.looked.wait()
            stage.move("running")

        tasks.start_soon(make)
        with anyio.fail_after(5):
            assert UUID == (await vm.wait("web1", state="running")).uuid
    assert stage.looks > 3


@pytest.mark.parametrize(("now", "said"), [("running", "is running, not crashed or paused"), (None, "is gone, not crashed or paused")])
async def test_a_state_that_does_not_come_is_told_with_what_there_is(now: State | None, said: str) -> None:
    """`DeadlineExceeded`, and what is seen then."""
    async with staged() as (stage, vm):
        stage.move(now)
        with pytest.raises(DeadlineExceeded, match=said):
            await vm.wait("web1", state=("paused", "crashed"), timeout=0.1)


@pytest.mark.parametrize("state", ["stopped", (), ("running", "gone")])
async def test_a_state_that_there_is_not_is_not_waited_for(state: Any) -> None:
    """No domain would ever be in it."""
    async with staged() as (_, vm):
        with pytest.raises(Invalid, match="state:"):
            await vm.wait("web1", state=state)


async def test_a_project_is_followed_alone_unless_every_one_is_asked_for() -> None:
    """A client means its own project; what belongs to none comes with `every`, and is refused without."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker, project="shop") as (vm, bus):
        await bus.append(told(1))
        await bus.append(told(2, project="shop"))
        await bus.append(told(3, kind="node.online", project="_", domain="_"))
        assert await take(vm.events(since=0.0), 1) == [2]
        assert await take(vm.events(since=0.0, project="default"), 1) == [1]
        assert await take(vm.events(since=0.0, every=True), 3) == [1, 2, 3]
        with pytest.raises(Invalid, match="node belongs to no project"):
            vm.events(kinds=["lifecycle", "node"])


async def test_a_feed_gives_events_for_match() -> None:
    """Values of `orchestrator.event`, with their data decoded."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (vm, bus):
        await bus.append(told(1, data={"event": "started", "detail": "booted"}))
        async for each in vm.events(since=0.0):
            assert isinstance(each, Lifecycle)
            assert ("started", "booted", {"event": "started", "detail": "booted"}) == (each.event, each.detail, each.data)
            break


def test_plain_asyncio_is_enough() -> None:
    """Calls in tasks at once, a call that is cancelled, a call that a timeout cuts short: the client serves on."""

    async def respond(message: Message) -> tuple[bytes, Headers]:
        if message.subject.endswith(".reboot"):
            await asyncio.Event().wait()
        return done(message)

    async def program() -> list[str]:
        broker = MemoryBroker()
        async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (vm, _):
            hanging = asyncio.create_task(vm.reboot("web1"))
            results = await asyncio.gather(*(vm.start(f"web{number}") for number in range(20)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await vm.reboot("web1")
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            left = asyncio.all_tasks()
            results.append(await vm.start("web1"))
            assert left == asyncio.all_tasks()
        return [result.verb for result in results]

    assert ["start"] * 21 == asyncio.run(program())
