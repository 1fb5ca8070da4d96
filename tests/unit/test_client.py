"""The client keeps its promises over a bus that fails: one effect, no event missed or given twice, errors by their code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.memory.reader import MemoryReader
from orchestrator.bus.port import Headers, LogConfig, Message, Outgoing, Start, Unavailable, Uncertain
from orchestrator.client import Client
from orchestrator.feed import Feed
from orchestrator.protocol import codec
from orchestrator.protocol.command import answer, refusal
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Busy, Conflict, DeadlineExceeded, Internal, Invalid, NodeUnavailable, NotFound
from orchestrator.protocol.event import event
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.token import derived_uuid

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
        result = await client.call("default", "web1", "set-autostart", {"enabled": False}, timeout_s=5, id="one")
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
            await client.call("default", "web1", "start")
        result = await client.attempt("default", "web1", "start")
    assert (result.ok, result.event) == (False, "command.failed")


async def test_an_answer_that_is_not_final_leaves_the_outcome_unknown() -> None:
    """A coordinator that could not wait any longer says so; the command may still succeed."""

    async def respond(_: Message) -> tuple[bytes, Headers]:
        return refusal(DeadlineExceeded("the node did not end it in time", outcome="unknown"), final=False)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        with pytest.raises(DeadlineExceeded) as raised:
            await client.attempt("default", "web1", "start")
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
        result = await client.call("default", "web1", "start")
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
        await client.call("default", "web1", "start")
    assert asked == [asked[0]] * 2


async def test_a_request_that_nobody_takes_has_no_effect_and_says_so() -> None:
    """Without a coordinator the patience ends long before the command's own time."""
    async with client_of(MemoryBroker(), patience_s=0.0) as (client, _):
        with pytest.raises(NodeUnavailable, match="no coordinator answers") as raised:
            await client.call("default", "web1", "start")
    assert (raised.value.outcome, raised.value.retryable) == ("none", True)


async def test_an_answer_that_cannot_be_read_is_an_internal_error() -> None:
    """What is no JSON of ours is told as such, with the effect unknown."""

    async def respond(_: Message) -> tuple[bytes, Headers]:
        return b"oops", {}

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        with pytest.raises(Internal, match="cannot be read") as raised:
            await client.call("default", "web1", "start")
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
            await client.call(project, domain, verb, id=id)


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
        await client.call("default", "my vm", "start")
        with pytest.raises(NotFound):
            await client.call("default", "no vm", "start")
    assert asked == ["virt.v1.api.default._.domains", f"virt.v1.api.default.{UUID}.start", "virt.v1.api.default._.domains"]


async def test_a_name_that_two_domains_have_is_a_conflict() -> None:
    """The client does not choose between them."""

    async def respond(_: Message) -> tuple[bytes, Headers]:
        return answer({"domains": [observed(UUID, "my vm"), observed(OTHER, "my vm")]}), {}

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        with pytest.raises(Conflict, match=UUID):
            await client.get("default", "my vm")


async def test_a_new_domain_whose_name_is_no_token_gets_the_uuid_of_its_command() -> None:
    """So a repeat under the same id is the same domain; the name goes into the XML."""
    asked: list[Message] = []

    async def respond(message: Message) -> tuple[bytes, Headers]:
        asked.append(message)
        return (answer({"domains": []}), {}) if message.subject.endswith(".domains") else done(message)

    broker = MemoryBroker()
    async with served(broker, SUBJECTS.apis, respond), client_of(broker) as (client, _):
        await client.call("default", "my vm", "create-xml", {"xml": XML}, id="one")
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
        found = await client.domains("default")
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
        assert await client.xml("default", "web1") == "<domain/>"
        assert await client.stats("default", "web1") == {"vcpu.current": 1}


async def test_a_posted_command_is_in_the_log_when_its_id_is_returned() -> None:
    """`post` waits for storage and for nothing else."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, bus):
        id = await client.post("default", "web1", "start")
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
        id = await client.post("default", "web1", "start")
        reader = await bus.reader(SUBJECTS.log_cmd, "test", SUBJECTS.cmds, Start())
        stored = await reader.take(10)
    assert [msgspec.json.decode(message.body) for message in stored] == [{"id": id}] * 2


async def test_a_full_log_is_busy_and_nothing_is_stored() -> None:
    """The log of commands refuses instead of forgetting."""
    broker = MemoryBroker()
    await logs(broker)
    async with client_of(broker) as (client, _):
        with pytest.raises(Busy):
            await client.post("default", "web1", "define-xml", {"xml": "x" * 5000})


def told(number: int, *, domain: str = UUID, name: str = "web1", node: str = "n1", kind: str = "lifecycle.started") -> Outgoing:
    """Return an event to store."""
    value = event(
        prefix="virt", name=kind, source=f"/virt/nodes/{node}", node=node, project="default", subject=domain, time="2026-01-01T00:00:00Z",
        epoch="01JD0000000000000000000000", sequence=number, previous=0, data={}, domainname=name,
    )
    return Outgoing(SUBJECTS.evt(node, "default", domain, kind), codec.encode(value))


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
            await client.post("default", "web1", "start")
        with pytest.raises(Unavailable):
            await client.call("default", "web1", "start")


async def test_a_command_too_large_is_refused_before_it_is_sent() -> None:
    """The wire allows half a mebibyte."""
    async with client_of(MemoryBroker(), patience_s=0.0) as (client, _):
        with pytest.raises(Invalid, match="at most 524288"):
            await client.call("default", "web1", "create-xml", {"xml": "x" * 600_000})


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
            await client.call("default", "web1", "start")
    assert raised.value.outcome == "unknown"
