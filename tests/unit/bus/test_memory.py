"""Laws of the broker in memory that the real one cannot show: its time, its faults, its determinism."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from orchestrator.bus.logs import bucket
from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.memory.pattern import head, heads, mapped, overlap, takes
from orchestrator.bus.port import Expect, Headers, LogConfig, Message, Outgoing, Start, Uncertain
from orchestrator.store.kv import KeyValue
from orchestrator.store.port import Entry

CONFIG = LogConfig(name="L", subjects=("l.>",))


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: where nothing is ready, its clock jumps to what comes next."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Return the virtual time."""
        return self.now


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass that would have been waited."""
        if timeout is None:
            raise RuntimeError("nothing is left that could happen")
        self._loop.now += max(timeout, 0.0)
        return super().select(0)


def virtually(test: Callable[[MemoryBroker, MemoryBus], Awaitable[None]]) -> float:
    """Run a test in virtual time, with a broker and a connected bus; return the virtual seconds that it took."""

    async def main() -> float:
        broker = MemoryBroker(anyio.current_time)
        async with MemoryBus(broker, clock=anyio.current_time) as bus:
            await bus.link.up()
            await test(broker, bus)
        return anyio.current_time()

    return anyio.run(main, backend_options={"loop_factory": VirtualLoop})


# -- time


def test_leases_run_out_in_virtual_time() -> None:
    """A day of leases takes no time: what is renewed lives, what is not ends after its age, to the second."""
    ended: list[float] = []

    async def test(broker: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([bucket("leases", max_age_s=15)])
        store = KeyValue(bus, "leases")

        async def watch() -> None:
            async for portion in store.watch():
                ended.extend(broker.clock() for entry in portion or [] if (entry.key, entry.value) == ("n2", None))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            revision = await store.put("n1", b"")
            await store.put("n2", b"")
            for _ in range(24 * 3600 // 5):
                await anyio.sleep(5)
                revision = await store.update("n1", b"", revision)
            tasks.cancel_scope.cancel()

    began = time.monotonic()
    assert 24 * 3600 == pytest.approx(virtually(test), abs=1)
    assert 30 > time.monotonic() - began
    assert [15.0] == ended


def test_a_marker_lives_no_longer_than_its_log_lets_it() -> None:
    """A bucket's age counts for markers too, as on the real broker, whatever time they were given."""

    async def test(_: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([bucket("leases", max_age_s=15)])
        store = KeyValue(bus, "leases")
        await store.put("n1", b"")
        await anyio.sleep(16)
        assert Entry("n1", None, 2) == await store.get("n1")
        await anyio.sleep(15)
        assert await store.get("n1") is None

    virtually(test)


def test_a_short_life_is_lengthened_where_it_could_uncover_what_was_before() -> None:
    """A log with markers and more than one message a subject keeps each at least as long as a marker."""

    async def test(_: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([LogConfig(name="L", subjects=("l.>",), max_per_subject=5, markers_s=60)])
        await bus.append(Outgoing("l.a", b"", {"Nats-TTL": "1s"}))
        await anyio.sleep(59)
        assert await bus.last("L", "l.a") is not None
        await anyio.sleep(2)
        marker = await bus.last("L", "l.a")
        assert marker is not None
        assert "MaxAge" == marker.headers["Nats-Marker-Reason"]

    virtually(test)


def test_a_message_may_outlive_its_log() -> None:
    """One that is never to end stays, whatever the age."""

    async def test(_: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([LogConfig(name="L", subjects=("l.>",), max_age_s=300, markers_s=60)])
        await bus.append(Outgoing("l.a", b"", {"Nats-TTL": "never"}))
        await bus.append(Outgoing("l.b", b""))
        await anyio.sleep(3600)
        assert 1 == (await bus.reader("L", "r", ">", Start())).pending

    virtually(test)


def test_a_reader_left_alone_is_forgotten() -> None:
    """After half a minute without a word; one that waits is not alone."""

    async def test(_: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([CONFIG])
        left = await bus.reader("L", "left", ">", Start())
        waiting = await bus.reader("L", "waiting", ">", Start())
        for _turn in range(4):
            assert [] == await waiting.take(1, wait_s=25)
        assert [] == await waiting.take(1)
        with pytest.raises(Uncertain):
            await left.take(1)

    virtually(test)


def test_the_clocks_of_broker_and_bus_may_differ() -> None:
    """The offset says by how much, once an answer came."""

    async def main() -> None:
        async with MemoryBus(MemoryBroker(lambda: 1000.0), clock=lambda: 400.0) as bus:
            await bus.link.up()
            assert 0.0 == bus.offset_s
            await bus.provision([CONFIG])
            assert 600.0 == bus.offset_s
            await bus.append(Outgoing("l.a", b""))
            last = await bus.last("L", "l.a")
            assert last is not None
            assert 1000.0 == last.time

    anyio.run(main)


# -- faults


def test_what_is_cut_on_its_way_to_the_broker_never_happened() -> None:
    """The other half of `Uncertain`: nothing was stored."""

    async def test(broker: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([CONFIG])
        async with anyio.create_task_group() as tasks:

            async def append() -> None:
                with pytest.raises(Uncertain):
                    await bus.append(Outgoing("l.a", b""))

            tasks.start_soon(append)
            await anyio.lowlevel.checkpoint()  # sent, and a turn of the loop away from the broker
            broker.cut(bus)
        broker.restore(bus)
        await bus.link.up()
        assert await bus.last("L", "l.>") is None

    virtually(test)


def test_what_is_on_its_way_to_a_listener_is_lost_in_a_cut() -> None:
    """Though the broker had sent it."""

    async def test(broker: MemoryBroker, bus: MemoryBus) -> None:
        heard: list[bytes] = []
        async with bus.listen("a", lambda message: heard.append(message.body)):
            broker.publish(Message("a", b"lost"))
            broker.cut(bus)
            broker.restore(bus)
            await bus.link.up(after=1)
            await bus.publish("a", b"heard")
            await bus.provision([])
            assert [b"heard"] == heard

    virtually(test)


def test_a_stopped_broker_forgets_ids_and_readers_but_no_message() -> None:
    """As little as a restart may be trusted with."""

    async def test(broker: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([CONFIG])
        message = Outgoing("l.a", b"", {"Nats-Msg-Id": "one"})
        await bus.append(message)
        broker.stop()
        await bus.link.down(1)
        broker.start()
        await bus.link.up(after=1)
        assert 2 == await bus.append(message)
        assert 1 == await bus.purge("L", "l.a", 1)

    virtually(test)


# -- determinism


def test_the_same_calls_have_the_same_effects() -> None:
    """Two runs tell the same story, down to who of a queue group got what."""

    def story() -> list[str]:
        told: list[str] = []

        async def test(broker: MemoryBroker, bus: MemoryBus) -> None:
            def server(name: str) -> Callable[[Message], Awaitable[tuple[bytes, Headers]]]:
                async def answer(message: Message) -> tuple[bytes, Headers]:
                    told.append(f"{anyio.current_time()} {name} {message.body.decode()}")
                    await anyio.sleep(int(message.body) % 3)
                    return message.body, {}

                return answer

            async def ask(number: int) -> None:
                told.append((await bus.request("q", str(number).encode(), timeout_s=60)).body.decode())

            await bus.provision([CONFIG])
            async with (
                bus.serve("q", "q", server("one"), version="1.0.0", metadata={}),
                MemoryBus(broker) as other,
                other.serve("q", "q", server("two"), version="1.0.0", metadata={}),
                anyio.create_task_group() as tasks,
            ):
                for number in range(20):
                    tasks.start_soon(ask, number)

        virtually(test)
        return told

    first = story()
    assert first == story()
    assert 40 == len(first)


def test_a_publisher_is_never_in_the_stack_of_a_listener() -> None:
    """Delivery takes a turn of the loop, so that a listener that publishes what it hears cannot run away."""

    async def test(_: MemoryBroker, bus: MemoryBus) -> None:
        heard: list[bytes] = []
        async with bus.listen("a", lambda message: heard.append(message.body)):
            await bus.publish("a", b"1")
            assert [] == heard
            await bus.provision([])
            assert [b"1"] == heard

    virtually(test)


def test_a_request_to_a_log_is_acknowledged() -> None:
    """As JetStream does for clients that append by themselves; a refusal is told in the same way."""

    async def test(_: MemoryBroker, bus: MemoryBus) -> None:
        await bus.provision([CONFIG])
        assert b'{"stream":"L","seq":1}' == (await bus.request("l.a", b"", timeout_s=1)).body
        assert b'"err_code":10166' in (await bus.request("l.a", b"", {"Nats-TTL": "1s"}, timeout_s=1)).body
        assert 2 == await bus.append(Outgoing("l.a", b""), Expect(1))

    virtually(test)


# -- filters


@pytest.mark.parametrize(
    ("subject", "source", "destination", "expected"),
    [
        ("a.b.c", "a.>", "x.>", "x.b.c"),
        ("a.b.c", "a.*.*", "x.{{wildcard(2)}}.$1", "x.c.b"),
        ("a.b.c.d", "a.*.>", "x.$1.>", "x.b.c.d"),
        ("a.b", "a.b", "x", "x"),
        ("a.b", "b.>", "x.>", None),
    ],
)
def test_a_mapping_makes_one_subject_of_another(subject: str, source: str, destination: str, expected: str | None) -> None:
    """What wildcards took goes where the destination wants it."""
    assert expected == mapped(subject, source, destination)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "*.b", True),
        ("a.*.c", "a.b.d", False),
        ("a.>", "a.b.c", True),
        ("a.>", "*.*", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a", "a.b", False),
    ],
)
def test_filters_overlap_where_a_subject_fits_both(one: str, other: str, expected: bool) -> None:
    """Whichever comes first."""
    assert expected == overlap(one, other)
    assert expected == overlap(other, one)


@pytest.mark.parametrize("subjects", ["a.b.c", "a.*.c", "a.>", "*.b.c", ">", "a.b.*"])
def test_a_filter_is_found_by_a_head_of_each_subject_it_takes(subjects: str) -> None:
    """So the broker need look at few filters."""
    assert takes(subjects, "a.b.c")
    assert head(subjects) in heads("a.b.c")
