"""Laws of the bus, its connection and its messages: each holds in memory and on the real broker."""

from __future__ import annotations

import json

import anyio
import pytest

from orchestrator.bus.port import Bus, Headers, Message, NoResponder, Outgoing, Refused, Start, Subscription, Unavailable, Uncertain
from orchestrator.protocol.command import HEADER_ERROR, HEADER_ERROR_CODE
from tests.contract.ear import PATIENCE_S, Ear
from tests.contract.systems import System

pytestmark = pytest.mark.anyio


# -- the connection


async def test_entering_does_not_wait_for_the_broker(system: System) -> None:
    """A bus without a broker is entered, stands in session 0, and is up as soon as there is one."""
    async with system.bus(cut=True) as bus:
        assert (0, False) == (bus.link.session, bus.link.connected)
        system.restore(bus)
        with anyio.fail_after(PATIENCE_S):
            assert 1 == await bus.link.up()
        assert bus.link.connected


async def test_without_connection_nothing_is_sent(system: System) -> None:
    """All that needs the broker says `Unavailable` at once."""
    async with system.bus(cut=True) as bus:
        with pytest.raises(Unavailable):
            await bus.publish(system.word, b"")
        with pytest.raises(Unavailable):
            await bus.request(system.word, b"", timeout_s=PATIENCE_S)
        with pytest.raises(Unavailable):
            await bus.append(Outgoing(system.word, b""))
        with pytest.raises(Unavailable):
            await bus.last("LOG", system.word)
        with pytest.raises(Unavailable):
            await bus.purge("LOG", system.word, 1)
        with pytest.raises(Unavailable):
            await bus.reader("LOG", "r", system.word, Start())


async def test_each_reconnect_is_a_new_session(system: System, bus: Bus) -> None:
    """A cut ends the session; the next one has a higher number and began later."""
    first, since = bus.link.session, bus.link.since
    system.cut(bus)
    with anyio.fail_after(PATIENCE_S):
        await bus.link.down(first)
        assert not bus.link.connected
        system.restore(bus)
        assert first + 1 == await bus.link.up(after=first)
    assert bus.link.since > since


async def test_a_session_long_over_is_down(system: System, bus: Bus) -> None:
    """`down` of an earlier session returns though the present one stands."""
    first = bus.link.session
    system.cut(bus)
    system.restore(bus)
    with anyio.fail_after(PATIENCE_S):
        await bus.link.up(after=first)
        await bus.link.down(first)
    assert bus.link.connected


async def test_a_stopped_broker_ends_every_session(system: System, bus: Bus, other: Bus) -> None:
    """All buses notice that the broker is gone, and come back with it."""
    async with Ear.at(other, system.word) as ear:
        await system.stop()
        with anyio.fail_after(PATIENCE_S):
            await bus.link.down(1)
            await other.link.down(1)
            await system.start()
            assert [2, 2] == [await bus.link.up(after=1), await other.link.up(after=1)]
        await bus.publish(system.word, b"again")
        assert [b"again"] == [message.body for message in await ear.until(1)]


async def test_subscriptions_survive_a_reconnect(system: System, bus: Bus, other: Bus) -> None:
    """What is published in the meantime is missed, what comes in the new session is heard."""
    async with Ear.at(other, system.word) as ear:
        await bus.publish(system.word, b"before")
        await ear.until(1)
        system.cut(other)
        with anyio.fail_after(PATIENCE_S):
            await other.link.down(1)
            await bus.publish(system.word, b"missed")
            await round_trip(bus, system)
            system.restore(other)
            await other.link.up(after=1)
        await bus.publish(system.word, b"after")
        await ear.until(2)
        assert [b"before", b"after"] == ear.bodies


async def test_leaving_sends_what_waits(system: System, other: Bus) -> None:
    """What was published right before the bus was left arrives."""
    async with Ear.at(other, system.word) as ear:
        async with system.bus() as bus:
            await bus.publish(system.word, b"bye")
        assert [b"bye"] == [message.body for message in await ear.until(1)]


# -- publish and subscribe


async def test_messages_of_one_publisher_arrive_in_order(system: System, bus: Bus, other: Bus) -> None:
    """Five hundred messages keep their order, over several subjects."""
    sent = [str(number).encode() for number in range(500)]
    async with Ear.at(other, f"{system.word}.>") as ear:
        for number, body in enumerate(sent):
            await bus.publish(f"{system.word}.{number % 3}", body)
        await ear.until(500)
        assert sent == ear.bodies


@pytest.mark.parametrize(
    ("subjects", "heard"),
    [
        ("{}", ["{}"]),
        ("{}.a.b", ["{}.a.b"]),
        ("{}.*", ["{}.a"]),
        ("{}.*.b", ["{}.a.b"]),
        ("*.a.b", ["{}.a.b"]),
        ("{}.a.>", ["{}.a.b", "{}.a.b.c"]),
        ("{}.*.>", ["{}.a.b", "{}.a.b.c"]),
        ("{}.>", ["{}.a", "{}.a.b", "{}.a.b.c"]),
    ],
)
async def test_a_star_takes_one_token_and_an_angle_all_that_follow(
    system: System, bus: Bus, other: Bus, subjects: str, heard: list[str]
) -> None:
    """`*` is exactly one token, `>` one or more; without them a subject is itself only."""
    word = system.word
    async with Ear.at(other, subjects.format(word)) as ear, Ear.at(other, f"{word}-end") as end:
        for subject in (word, f"{word}.a", f"{word}.a.b", f"{word}.a.b.c", f"{word}-end"):
            await bus.publish(subject, b"")
        await end.until(1)
        assert [subject.format(word) for subject in heard] == [message.subject for message in ear.heard]


async def test_headers_travel(system: System, bus: Bus, other: Bus) -> None:
    """Headers arrive as they were given."""
    async with Ear.at(other, system.word) as ear:
        await bus.publish(system.word, b"", {"Virt-Id": "a: b"})
        assert "a: b" == (await ear.until(1))[0].headers["Virt-Id"]


async def test_one_member_of_a_queue_group_gets_a_message(system: System, bus: Bus, other: Bus) -> None:
    """Each message reaches one of the group, and all who listen alone."""
    word = system.word
    async with (
        bus.subscribe(word, queue="q") as mine,
        other.subscribe(word, queue="q") as theirs,
        Ear.at(other, word) as ear,
        anyio.create_task_group() as tasks,
    ):
        group = Ear()

        async def collect(messages: Subscription) -> None:
            async for message in messages:
                group.deliver(message)

        tasks.start_soon(collect, mine)
        tasks.start_soon(collect, theirs)
        for number in range(50):
            await bus.publish(word, str(number).encode())
        await ear.until(50)
        await group.until(50)
        await round_trip(bus, system)
        await round_trip(other, system)
        assert sorted(ear.bodies) == sorted(group.bodies)
        tasks.cancel_scope.cancel()


async def test_what_overflows_is_dropped_and_counted(system: System, bus: Bus, other: Bus) -> None:
    """A subscription holds its limit, keeps the oldest, and knows how many it lost."""
    async with other.subscribe(system.word, limit=2) as subscription, Ear.at(other, f"{system.word}.end") as end:
        for number in range(5):
            await bus.publish(system.word, str(number).encode())
        await bus.publish(f"{system.word}.end", b"")
        await end.until(1)
        assert 3 == subscription.dropped
        messages = aiter(subscription)
        assert [b"0", b"1"] == [(await anext(messages)).body, (await anext(messages)).body]


async def test_iteration_ends_when_the_subscription_is_left(system: System, bus: Bus) -> None:
    """Who iterates is not left hanging."""
    done = anyio.Event()

    async def iterate(messages: Subscription) -> None:
        async for _ in messages:
            pass
        done.set()

    async with anyio.create_task_group() as tasks:
        async with bus.subscribe(system.word) as subscription:
            tasks.start_soon(iterate, subscription)
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(PATIENCE_S):
            await done.wait()


async def test_a_listener_that_fails_hears_the_next_message(system: System, bus: Bus, other: Bus) -> None:
    """What `deliver` raises ends neither the subscription nor the connection."""
    ear = Ear()

    def deliver(message: Message) -> None:
        ear.deliver(message)
        if message.body == b"bad":
            raise ValueError(message.body)

    async with other.listen(system.word, deliver):
        await bus.publish(system.word, b"bad")
        await bus.publish(system.word, b"good")
        await ear.until(2)
    assert [b"bad", b"good"] == ear.bodies


async def test_a_message_too_large_for_the_broker_is_refused(system: System, bus: Bus) -> None:
    """Over a megabyte nothing is sent, and the connection stands."""
    with pytest.raises(Refused):
        await bus.publish(system.word, bytes(1024 * 1024 + 1))
    await round_trip(bus, system)
    assert 1 == bus.link.session


# -- request and reply


async def test_a_request_is_answered(system: System, bus: Bus, other: Bus) -> None:
    """Body and headers go there and come back."""

    async def answer(message: Message) -> tuple[bytes, Headers]:
        return message.subject.encode() + message.body, {"X": message.headers["X"] + "!"}

    async with other.serve(system.word, f"{system.word}.>", answer, version="1.0.0", metadata={}):
        reply = await bus.request(f"{system.word}.a.b", b"?", {"X": "y"}, timeout_s=PATIENCE_S)
    assert (f"{system.word}.a.b?".encode(), "y!") == (reply.body, reply.headers["X"])


async def test_who_asks_nobody_is_told(system: System, bus: Bus) -> None:
    """Without a server there is `NoResponder`, long before the timeout."""
    with anyio.fail_after(PATIENCE_S), pytest.raises(NoResponder):
        await bus.request(system.word, b"", timeout_s=60)


async def test_silence_is_uncertain(system: System, bus: Bus, other: Bus) -> None:
    """Somebody hears the request and does not answer in time."""
    async with Ear.at(other, system.word) as ear:
        with pytest.raises(Uncertain):
            await bus.request(system.word, b"", timeout_s=0.05)
        await ear.until(1)


async def test_a_request_under_way_in_a_cut_is_uncertain(system: System, bus: Bus, other: Bus) -> None:
    """It ends with the session, not with its timeout."""
    async with Ear.at(other, system.word) as ear, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with anyio.fail_after(PATIENCE_S), pytest.raises(Uncertain):
                await bus.request(system.word, b"", timeout_s=60)

        tasks.start_soon(ask)
        await ear.until(1)
        system.cut(bus)


async def test_servers_of_one_service_share_the_requests(system: System, bus: Bus, other: Bus) -> None:
    """Each request is answered once, by one of them."""
    served: list[bytes] = []

    async def answer(message: Message) -> tuple[bytes, Headers]:
        served.append(message.body)
        return message.body, {}

    async with (
        bus.serve(system.word, f"{system.word}.>", answer, version="1.0.0", metadata={}),
        other.serve(system.word, f"{system.word}.>", answer, version="1.0.0", metadata={}),
    ):
        sent = [str(number).encode() for number in range(20)]
        assert sent == [(await bus.request(f"{system.word}.a", body, timeout_s=PATIENCE_S)).body for body in sent]
    assert sent == served


async def test_a_slow_request_holds_up_no_other(system: System, bus: Bus, other: Bus) -> None:
    """Each request is a task of its own, and one beyond the limit is told `busy`."""
    go = anyio.Event()
    slow: list[bytes] = []
    began = anyio.Event()

    async def answer(message: Message) -> tuple[bytes, Headers]:
        if message.body == b"slow":
            began.set()
            await go.wait()
        return message.body, {}

    async def ask_slow() -> None:
        slow.append((await bus.request(f"{system.word}.a", b"slow", timeout_s=PATIENCE_S)).body)

    async with other.serve(system.word, f"{system.word}.*", answer, version="1.0.0", metadata={}, limit=2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_slow)
            await began.wait()
            assert b"fast" == (await bus.request(f"{system.word}.a", b"fast", timeout_s=PATIENCE_S)).body
            began = anyio.Event()
            tasks.start_soon(ask_slow)
            await began.wait()
            refused = await bus.request(f"{system.word}.a", b"fast", timeout_s=PATIENCE_S)
            assert ("busy", "429") == (refused.headers[HEADER_ERROR], refused.headers[HEADER_ERROR_CODE])
            go.set()
        assert b"fast" == (await bus.request(f"{system.word}.a", b"fast", timeout_s=PATIENCE_S)).body
    assert [b"slow", b"slow"] == slow


async def test_a_server_that_fails_answers_internal(system: System, bus: Bus, other: Bus) -> None:
    """The text of the error stays on its own side."""

    async def answer(message: Message) -> tuple[bytes, Headers]:
        raise ValueError(f"secret {message.subject}")

    async with other.serve(system.word, system.word, answer, version="1.0.0", metadata={}):
        reply = await bus.request(system.word, b"", timeout_s=PATIENCE_S)
    assert ("internal", "500") == (reply.headers[HEADER_ERROR], reply.headers[HEADER_ERROR_CODE])
    assert b"secret" not in reply.body


async def test_acknowledgement_subjects_ask_for_nothing(system: System, bus: Bus, other: Bus) -> None:
    """A message whose reply is a `$JS.ACK` subject never reaches the server."""
    served: list[bytes] = []

    async def answer(message: Message) -> tuple[bytes, Headers]:
        served.append(message.body)
        return b"", {}

    async with other.serve(system.word, system.word, answer, version="1.0.0", metadata={}):
        await system.forge(system.word, b"forged", "$JS.ACK.S.c.1.1.1.1.1")
        await bus.request(system.word, b"asked", timeout_s=PATIENCE_S)
    assert [b"asked"] == served


async def test_a_service_is_found(system: System, bus: Bus, other: Bus) -> None:
    """It answers PING, INFO and STATS as NATS micro services do (ADR-32)."""

    async def answer(message: Message) -> tuple[bytes, Headers]:
        return message.body, {}

    async with other.serve(system.word, f"{system.word}.>", answer, version="1.2.3", metadata={"node": "n1"}):
        await bus.request(f"{system.word}.a", b"", timeout_s=PATIENCE_S)
        ping, info, stats = [
            json.loads((await bus.request(f"$SRV.{kind}.{system.word}", b"", timeout_s=PATIENCE_S)).body)
            for kind in ("PING", "INFO", "STATS")
        ]
    assert ("io.nats.micro.v1.ping_response", system.word, "1.2.3", {"node": "n1"}) == (
        ping["type"],
        ping["name"],
        ping["version"],
        ping["metadata"],
    )
    assert ("io.nats.micro.v1.info_response", ping["id"], f"{system.word}.>") == (info["type"], info["id"], info["endpoints"][0]["subject"])
    assert ("io.nats.micro.v1.stats_response", 1) == (stats["type"], stats["endpoints"][0]["num_requests"])


async def round_trip(bus: Bus, system: System) -> None:
    """Return when all that the broker had for this bus, and this bus for the broker, has arrived."""
    async with Ear.at(bus, f"{system.word}-trip") as ear:
        await bus.publish(f"{system.word}-trip", b"")
        await ear.until(1)
