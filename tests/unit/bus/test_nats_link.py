"""Laws of the connection to a real broker: what it survives, and what it says when there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.abc
import pytest

from orchestrator.bus import nats_client
from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.nats import NatsBus, connect_or_explain
from orchestrator.bus.nats_client import Connection, Options
from orchestrator.bus.port import Headers, LogConfig, Message, Outgoing, Refused, Start, Unavailable, Uncertain
from tests.unit.bus.conftest import frozen

pytestmark = pytest.mark.anyio


async def pong(message: Message) -> tuple[bytes, Headers]:
    """Answer what was asked."""
    return message.body, {}


async def test_a_broker_killed_and_started_again_finds_all_subscriptions(broker: Embedded, bus: NatsBus) -> None:
    """Listeners, queues and services work in the next session without anybody's help."""
    heard: list[bytes] = []
    async with (
        bus.listen("a.>", lambda message: heard.append(message.body)),
        bus.subscribe("a.b") as queued,
        bus.serve("test-api", "api.>", pong, version="1.0.0", metadata={}),
    ):
        session = bus.link.session
        await broker.kill()
        with anyio.fail_after(5):
            await bus.link.down(session)
            await broker.start()
            assert session + 1 == await bus.link.up(session)
            assert b"again" == (await bus.request("api.x", b"again", timeout_s=2)).body
            await bus.publish("a.b", b"1")
            async for message in queued:
                assert b"1" == message.body
                break
    assert [b"1"] == heard


async def test_what_is_stored_survives_a_kill(broker: Embedded, bus: NatsBus) -> None:
    """The broker acknowledged it, so it is there."""
    await bus.provision([LogConfig(name="L", subjects=("l.>",), first_sequence=7)])
    assert 7 == await bus.append(Outgoing("l.a", b"kept"))
    session = bus.link.session
    await broker.kill()
    await broker.start()
    with anyio.fail_after(5):
        await bus.link.up(session)
    last = await bus.last("L", "l.>")
    assert last is not None
    assert (7, b"kept") == (last.sequence, last.body)


async def test_a_listener_that_comes_or_goes_in_an_outage_is_right_afterwards(broker: Embedded, bus: NatsBus) -> None:
    """The new session has exactly the subscriptions that are wanted then."""
    early: list[Message] = []
    late: list[Message] = []
    session = bus.link.session
    async with bus.listen("x", early.append):
        await broker.stop()
        await bus.link.down(session)
    async with bus.listen("x", late.append):
        await broker.start()
        with anyio.fail_after(5):
            await bus.link.up(session)
        async with bus.subscribe("x") as queued:
            await bus.publish("x", b"")
            async for _ in queued:
                break
    assert (0, 1) == (len(early), len(late))


async def test_a_reader_does_not_outlive_its_session(broker: Embedded, bus: NatsBus) -> None:
    """It says that it does not know, at once, and a new one goes on after the last message taken."""
    await bus.provision([LogConfig(name="L", subjects=("l.>",))])
    await bus.append(Outgoing("l.a", b"1"))
    reader = await bus.reader("L", "r", "l.>", Start())
    taken = await reader.take(10)
    async with anyio.create_task_group() as tasks:

        async def take() -> None:
            with pytest.raises(Uncertain):
                await reader.take(10, wait_s=60)

        tasks.start_soon(take)
        session = bus.link.session
        await broker.kill()
    await broker.start()
    with anyio.fail_after(5):
        await bus.link.up(session)
    await bus.append(Outgoing("l.a", b"2"))
    again = await bus.reader("L", "r", "l.>", Start(sequence=taken[-1].sequence + 1))
    assert [b"2"] == [message.body for message in await again.take(10)]


async def flood(bus: NatsBus) -> None:
    """Publish until that is refused for want of a connection."""
    with suppress(Unavailable):
        while True:
            await bus.publish("a", b"x" * 512 * 1024)


async def test_a_broker_that_falls_silent_ends_the_session(broker: Embedded, bus: NatsBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet says that it is gone; who publishes meanwhile is held up for a while and not for ever."""
    monkeypatch.setattr(nats_client, "_PING_S", 0.1)
    monkeypatch.setattr(nats_client, "_FLUSH_S", 0.1)
    async with NatsBus(broker.url, name="short of patience") as short:
        await short.link.up()
        async with frozen(broker):
            with anyio.fail_after(10):
                await flood(short)
                await short.link.down(1)
                with pytest.raises(Unavailable):
                    await short.request("a", b"", timeout_s=5)
        with anyio.fail_after(10):
            await short.link.up(1)
    assert bus.link.connected


async def test_refused_credentials_are_tried_until_they_hold(tmp_path: Path) -> None:
    """The bus says why it is not connected, goes on trying, and needs no restart when the broker is put right."""
    broker = Embedded(tmp_path, users=[User(name="n1", password="old")])  # noqa: S106  # the test's own
    async with broker, NatsBus(broker.url, name="test", user="n1", password="new") as bus:  # noqa: S106  # the test's own
        heard: list[Message] = []
        async with bus.listen("a", heard.append):
            with pytest.raises(Unavailable, match=r"refuses these credentials: check user, password"):
                await connect_or_explain(bus, within_s=1.0)
            assert 0 == bus.link.session
            await broker.stop()
            broker.users[0] = User(name="n1", password="new")  # noqa: S106  # the test's own
            await broker.start()
            await connect_or_explain(bus, within_s=10.0)
            async with bus.subscribe("a") as queued:
                await bus.publish("a", b"")
                async for _ in queued:
                    break
        assert 1 == len(heard)


async def test_a_user_locked_out_in_mid_session_comes_back_when_let_in(tmp_path: Path) -> None:
    """An error that ends the client for good in nats-py ends only the session here."""
    broker = Embedded(tmp_path, users=[User(name="n1", password="a")])  # noqa: S106  # the test's own
    async with broker, NatsBus(broker.url, name="test", user="n1", password="a") as bus:  # noqa: S106  # the test's own
        await connect_or_explain(bus)
        broker.users[0] = User(name="n1", password="b")  # noqa: S106  # the test's own
        broker.reload()
        with anyio.fail_after(5):
            await bus.link.down(1)
        with pytest.raises(Unavailable, match="refuses these credentials"):
            await connect_or_explain(bus, within_s=1.0)
        broker.users[0] = User(name="n1", password="a")  # noqa: S106  # the test's own
        broker.reload()
        with anyio.fail_after(10):
            assert 2 == await bus.link.up()


async def test_an_absent_broker_is_named(broker: Embedded) -> None:
    """The sentence says where no broker is, and no password."""
    await broker.stop()
    address = broker.url.removeprefix("nats://")
    async with NatsBus(f"nats://me:secret@{address}", name="test") as bus:
        with pytest.raises(Unavailable) as told:
            await connect_or_explain(bus, within_s=0.5)
    assert f"no broker answers at nats://{address}: is nats-server running there?" == str(told.value)


@asynccontextmanager
async def stranger(*greeting: bytes) -> AsyncIterator[str]:
    """Give the URL of a server that says `greeting`, answers each PING, and stores nothing."""

    async def greet(client: anyio.abc.SocketStream) -> None:
        async with client:
            try:
                for line in greeting:
                    await client.send(line + b"\r\n")
                while data := await client.receive():
                    await client.send(b"PONG\r\n" * data.count(b"PING\r\n"))
            except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                return

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, greet)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  # a socket's, not a database's
        yield f"nats://127.0.0.1:{port}"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("version", ["2.11.9", "1.99.0", "", "newest"])
async def test_a_broker_too_old_is_told_so(version: str) -> None:
    """What lacks atomic batches cannot keep the promises, so there is no session with it."""
    info = b'INFO {"server_id":"x","version":"%b","max_payload":1048576,"headers":true}' % version.encode()
    async with stranger(info) as url, NatsBus(url, name="test") as bus:
        with pytest.raises(Unavailable) as told:
            await connect_or_explain(bus, within_s=0.5)
        assert f"the broker at {url} has version {version or 'unknown'}, needed is 2.12 or newer: upgrade nats-server" == str(told.value)
        assert 0 == bus.link.session
        with pytest.raises(Unavailable):
            await bus.publish("a", b"")


async def test_what_the_broker_says_on_hanging_up_is_passed_on() -> None:
    """Whoever operates it can act on its own words."""
    info = b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}'
    async with stranger(info, b"-ERR 'Maximum Connections Exceeded'") as url, NatsBus(url, name="test") as bus:
        with pytest.raises(Unavailable, match=r"(?i)no connection to the broker at .*: maximum connections exceeded"):
            await connect_or_explain(bus, within_s=0.5)


async def test_what_was_left_to_send_on_a_broken_socket_ends_with_it(broker: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker hung up in the middle of a publish: the session ends without an error of its own, and its socket is closed."""
    connection = Connection(ignore, [broker.url], Options(name="test"))
    await connection.open()
    socket = cast(Any, connection._transport)._io_writer

    async def drain() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(connection._transport, "drain", drain)
    connection._pending, connection._pending_data_size = [b"PING\r\n"], 6
    await connection._close(Connection.CLOSED)
    assert connection.ended.is_set()
    assert socket.is_closing()
    await socket.wait_closed()


async def ignore(_: Exception) -> None:
    """Take no notice of an error."""


async def test_credentials_that_are_none_are_told_and_do_not_block(tmp_path: Path, broker: Embedded) -> None:
    """nats-py would look for the token in such a file for ever, on the event loop."""
    for content, why in ((None, "No such file"), (b"nothing in it", "is no credentials file")):
        path = tmp_path / "user.creds"
        if content is not None:
            path.write_bytes(content)
        async with NatsBus(broker.url, name="test", credentials=path) as bus:
            with pytest.raises(Unavailable, match=why):
                await connect_or_explain(bus, within_s=0.5)


@pytest.mark.parametrize("url", ["http://a:4222", "nats://", "", "nats://a:4222,ftp://b"])
async def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """At once, and not by trying for ever."""
    with pytest.raises(ValueError, match="the form is nats://HOST:PORT"):
        NatsBus(url, name="test")


def with_headers(block: bytes) -> bytes:
    """Return the frame that publishes a block of headers as it is."""
    return b"HPUB a.b %d %d\r\n%b\r\n" % (len(block), len(block), block)


@pytest.mark.parametrize(
    "frame",
    [
        b"PUB a.\xff\xfe 0\r\n\r\n",
        b"PUB a.b \xff\xfe 0\r\n\r\n",
        with_headers(b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
        with_headers(b"NATS/1.0\r\n\xff: 1\r\nNo colon\r\n\r\n"),
        with_headers(b"NATS/1.0\r\nNats-Sequence: 9e9\r\n\r\n"),
    ],
    ids=["subject", "reply", "status", "header", "sequence"],
)
async def test_nothing_that_anybody_publishes_ends_the_session(
    bus: NatsBus, forge: Callable[[bytes], Awaitable[None]], frame: bytes
) -> None:
    """Bytes that nats-py cannot decode would end its read loop."""
    with anyio.fail_after(5):
        async with bus.subscribe("a.>") as queued:
            await forge(frame + b"PUB a.end 0\r\n\r\n")
            messages = aiter(queued)
            assert ["a.b", "a.end"] == [(await anext(messages)).subject.replace("\ufffd\ufffd", "b") for _ in range(2)]
    assert (True, 1) == (bus.link.connected, bus.link.session)


async def test_a_header_value_cannot_break_the_frame(bus: NatsBus) -> None:
    """Control characters become spaces, what is no text a question mark; the rest arrives as it is."""
    async with bus.subscribe("a") as queued:
        await bus.publish("a", b"body", {"traceparent": "ä\r\nInjected: 1\x00\x7f", "tracestate": "\ud800"})
        async for message in queued:
            assert {"traceparent": "ä  Injected: 1", "tracestate": "?"} == message.headers
            assert b"body" == message.body
            break


@pytest.mark.parametrize(
    ("subject", "body", "headers"),
    [("a", b"x" * 1024 * 1024, {"h": "1"}), ("a" * 5000, b"", {}), ("a b", b"", {}), ("", b"", {}), ("a", b"", {"a b": "1"})],
    ids=["size", "long subject", "space", "no subject", "header name"],
)
async def test_what_the_broker_would_hang_up_on_is_refused_here(bus: NatsBus, subject: str, body: bytes, headers: Headers) -> None:
    """One bad message must not cost everybody the session."""
    with pytest.raises(Refused):
        await bus.publish(subject, body, headers)
    async with bus.serve("test-api", "api", pong, version="1.0.0", metadata={}):
        assert b"1" == (await bus.request("api", b"1", timeout_s=2)).body
    assert (True, 1) == (bus.link.connected, bus.link.session)


@pytest.mark.parametrize("subject", ["", "a b", "a..b", ".a", "a.", "a.>.b", "a*", "a>", "a.b\n"])
async def test_what_is_no_subject_cannot_be_listened_to(bus: NatsBus, subject: str) -> None:
    """Told at once, before it could keep every later connection from coming about."""
    with pytest.raises(Refused, match="is no subject"):
        async with bus.listen(subject, lambda _: None):
            pass
    assert (True, 1) == (bus.link.connected, bus.link.session)


async def test_an_answer_that_cannot_be_sent_is_internal(bus: NatsBus) -> None:
    """Who asked is told at once, and the service goes on."""

    async def answer(message: Message) -> tuple[bytes, Headers]:
        return {b"large": b"x" * 2 * 1024 * 1024, b"none": cast(bytes, None)}.get(message.body, b"good"), {}

    async with bus.serve("test-api", "api", answer, version="1.0.0", metadata={}):
        for asked in (b"large", b"none"):
            assert "internal" == (await bus.request("api", asked, timeout_s=2)).headers["Nats-Service-Error"]
        assert b"good" == (await bus.request("api", b"", timeout_s=2)).body


async def test_who_leaves_a_service_answers_what_is_under_way(bus: NatsBus) -> None:
    """Taking no more and dropping what was taken are two things."""
    asked, leaving = anyio.Event(), anyio.Event()

    async def answer(_: Message) -> tuple[bytes, Headers]:
        asked.set()
        await leaving.wait()
        return b"done", {}

    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            assert b"done" == (await bus.request("api", b"", timeout_s=5)).body

        async with bus.serve("test-api", "api", answer, version="1.0.0", metadata={}):
            tasks.start_soon(ask)
            await asked.wait()
            leaving.set()


async def test_errors_of_the_body_come_out_as_they_are(broker: Embedded) -> None:
    """No group is wrapped around what the user of a bus raises."""
    with pytest.raises(ZeroDivisionError):
        async with NatsBus(broker.url, name="test") as bus, bus.serve("test-api", "api", pong, version="1.0.0", metadata={}):
            raise ZeroDivisionError


async def test_a_cancelled_owner_leaves_in_order(broker: Embedded) -> None:
    """Cancellation from outside ends bus, listeners and services without a hang or an error."""
    entered = anyio.Event()

    async def own() -> None:
        async with (
            NatsBus(broker.url, name="test") as bus,
            bus.listen("a", lambda _: None),
            bus.serve("test-api", "api", pong, version="1.0.0", metadata={}),
        ):
            await bus.link.up()
            entered.set()
            await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(own)
            await entered.wait()
            tasks.cancel_scope.cancel()


async def test_waiting_for_a_link_that_stands_lets_others_run(bus: NatsBus) -> None:
    """Else who tries, fails and waits again would never let anybody note that the session is over."""
    ran = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_set, ran)
        for _ in range(3):
            await bus.link.up()
        assert ran.is_set()


async def _set(event: anyio.Event) -> None:
    event.set()
