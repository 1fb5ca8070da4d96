"""Laws of the store: each holds over the memory bus and over the real one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import anyio
import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from orchestrator.bus.embedded import Embedded
from orchestrator.bus.logs import bucket
from orchestrator.bus.port import Bus, LogConfig, Refused, Stale
from orchestrator.store.kv import KeyValue
from orchestrator.store.port import Entry, Store
from tests.contract.ear import PATIENCE_S
from tests.contract.systems import NatsSystem, System
from tests.contract.witness import provisioned

pytestmark = pytest.mark.anyio

Watch = AsyncGenerator[list[Entry] | None]


@pytest.fixture
async def config(system: System, bus: Bus) -> LogConfig:
    """Give a provisioned bucket that nobody else uses."""
    return await provisioned(bus, bucket(f"b_{system.word}"))


@pytest.fixture
def store(system: System, bus: Bus, config: LogConfig) -> Store:  # noqa: ARG001  # the bucket has to be there
    """Give the bucket over one bus."""
    return KeyValue(bus, f"b_{system.word}", watcher="one")


@pytest.fixture
def second(system: System, other: Bus, config: LogConfig) -> Store:  # noqa: ARG001  # the bucket has to be there
    """Give the same bucket over another bus."""
    return KeyValue(other, f"b_{system.word}", watcher="two")


class Watcher:
    """Follows a watch step by step."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.entries: list[Entry] = []
        self.contents = 0

    async def step(self) -> None:
        """Take one portion."""
        with anyio.fail_after(PATIENCE_S):
            portion = await anext(self._watch)
        if portion is None:
            self.contents += 1
        else:
            self.entries += portion

    async def content(self) -> dict[str, bytes | None]:
        """Take all up to the next None, and return what it says."""
        self.entries, contents = [], self.contents
        while self.contents == contents:
            await self.step()
        return self.state

    async def until(self, reached: Callable[[], bool]) -> None:
        """Take portions until something is so."""
        while not reached():
            await self.step()

    async def changes(self, count: int) -> list[Entry]:
        """Return the next so many entries."""
        self.entries = []
        await self.until(lambda: len(self.entries) >= count)
        return self.entries

    @property
    def state(self) -> dict[str, bytes | None]:
        """Return the values as the entries left them."""
        return {entry.key: entry.value for entry in self.entries}

    @property
    def revision(self) -> int:
        """Return the highest revision seen."""
        return max((entry.revision for entry in self.entries), default=0)


@asynccontextmanager
async def watching(store: Store, keys: str = ">") -> AsyncIterator[Watcher]:
    """Watch for as long as the context lasts."""
    async with aclosing(store.watch(keys)) as watch:
        yield Watcher(watch)


async def forgotten(store: Store, key: str) -> None:
    """Wait until nothing is known of a key."""
    with anyio.fail_after(PATIENCE_S):
        while await store.get(key) is not None:  # no event tells that a marker is gone
            await anyio.sleep(0.05)


# -- values


async def test_an_unknown_key_is_none(store: Store) -> None:
    """Nothing is known of it."""
    assert None is await store.get("a")
    assert 0 == await store.revision()


async def test_what_is_put_is_got(store: Store, second: Store) -> None:
    """By everybody, with its revision; the last one counts."""
    await store.put("a.b", b"1")
    revision = await store.put("a.b", b"2")
    assert Entry("a.b", b"2", revision) == await second.get("a.b")
    assert revision == await second.revision()


async def test_an_empty_value_is_a_value(store: Store) -> None:
    """Not a removal."""
    revision = await store.put("a", b"")
    assert Entry("a", b"", revision) == await store.get("a")


@pytest.mark.parametrize("key", ["", "a b", "a..b", ".a", "a.", "*", ">", "a.*", "ä"])
async def test_what_is_no_key_is_refused(store: Store, key: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="key"):
        await store.put(key, b"")
    with pytest.raises(ValueError, match="key"):
        await store.get(key)


async def test_what_is_no_filter_is_refused(store: Store) -> None:
    """A watch takes keys with wildcards, and nothing else."""
    async with watching(store, "a..b") as watcher:
        with pytest.raises(ValueError, match="filter"):
            await watcher.step()


async def test_a_bucket_that_is_not_there_is_refused(bus: Bus) -> None:
    """A watch of it does not wait for ever."""
    async with watching(KeyValue(bus, "nowhere")) as watcher:
        with pytest.raises(Refused):
            await watcher.step()


# -- compare and set


async def test_an_update_needs_the_last_revision(store: Store, second: Store) -> None:
    """Of two writers that read the same, one wins, and the other is stale."""
    first = await store.put("a", b"1")
    await store.put("b", b"other keys do not matter")
    assert first + 2 == await second.update("a", b"2", first)
    for revision in (0, first, 77):
        with pytest.raises(Stale):
            await store.update("a", b"late", revision)
    assert Entry("a", b"2", first + 2) == await store.get("a")


async def test_an_update_at_zero_creates(store: Store) -> None:
    """Once."""
    revision = await store.update("a", b"1", 0)
    with pytest.raises(Stale):
        await store.update("a", b"2", 0)
    assert Entry("a", b"1", revision) == await store.get("a")


async def test_a_removed_key_leaves_a_marker(store: Store) -> None:
    """It can be updated at the marker's revision, and at no other."""
    first = await store.put("a", b"1")
    await store.remove("a")
    marker = await store.get("a")
    assert Entry("a", None, first + 1) == marker
    for revision in (0, first):
        with pytest.raises(Stale):
            await store.update("a", b"2", revision)
    assert first + 2 == await store.update("a", b"2", first + 1)
    assert Entry("a", b"2", first + 2) == await store.get("a")


async def test_a_removal_may_need_the_last_revision(store: Store) -> None:
    """A stale one removes nothing."""
    first = await store.put("a", b"1")
    second = await store.put("a", b"2")
    with pytest.raises(Stale):
        await store.remove("a", first)
    assert Entry("a", b"2", second) == await store.get("a")
    await store.remove("a", second)
    assert Entry("a", None, second + 1) == await store.get("a")


# -- time


async def test_a_marker_goes_after_its_time(store: Store) -> None:
    """Then nothing is known of the key, and it can be created again."""
    await store.put("a", b"1")
    await store.remove("a", marker_s=1)
    await forgotten(store, "a")
    await store.update("a", b"2", 0)


async def test_a_key_with_a_time_to_live_runs_out(store: Store) -> None:
    """A marker tells so; over it the key is updated at its revision, for good."""
    async with watching(store) as watcher:
        await watcher.content()
        first = await store.put("a", b"1", ttl_s=1)
        await watcher.until(lambda: watcher.state.get("a", b"") is None)
        marker = watcher.entries[-1]
        assert Entry("a", None, first + 1) == marker
        assert marker == await store.get("a")
        with pytest.raises(Stale):
            await store.update("a", b"2", 0)
        second = await store.update("a", b"2", marker.revision)
        assert [Entry("a", b"2", second)] == await watcher.changes(1)


async def test_a_bucket_with_an_age_makes_leases(system: System, bus: Bus, other: Bus) -> None:
    """What is not renewed runs out with a marker, what is renewed stays."""
    await bus.provision([bucket(f"l_{system.word}", max_age_s=2.0)])
    store, second = KeyValue(bus, f"l_{system.word}"), KeyValue(other, f"l_{system.word}")
    async with watching(store) as watcher:
        await watcher.content()
        await second.put("dead", b"1")
        alive = await second.put("alive", b"1")
        while watcher.state.get("dead", b"") is not None:
            alive = await second.update("alive", b"1", alive)
            await watcher.step()
        assert b"1" == watcher.state["alive"]


# -- watch


async def test_an_empty_bucket_says_none_at_once(store: Store) -> None:
    """Who waits for the initial content does not wait for a first key."""
    async with watching(store) as watcher:
        assert {} == await watcher.content()


async def test_a_watch_begins_with_what_is_there(store: Store) -> None:
    """All keys, the newest of each, in whatever portions; markers too."""
    for number in range(600):
        await store.put(f"k.{number % 300}", str(number).encode())
    await store.remove("k.0")
    async with watching(store) as watcher:
        assert {f"k.{number}": str(number + 300).encode() if number else None for number in range(300)} == await watcher.content()


async def test_a_watch_goes_on_with_what_changes(store: Store, second: Store) -> None:
    """Each as it comes, without repeats; there is no second None while the session lasts."""
    async with watching(second) as watcher:
        await watcher.content()
        for number, key in enumerate(("a", "b", "a")):
            revision = await store.put(key, str(number).encode())
            assert [Entry(key, str(number).encode(), revision)] == await watcher.changes(1)
        await store.remove("a")
        assert [Entry("a", None, revision + 1)] == await watcher.changes(1)
        assert 1 == watcher.contents


async def test_a_watch_takes_the_keys_it_is_told(store: Store, second: Store) -> None:
    """With wildcards as in subjects, before and after None."""
    for key in ("n1.a", "n2.a", "n1.b.c"):
        await store.put(key, b"0")
    async with watching(store, "n1.>") as deep, watching(second, "*.a") as flat:
        assert {"n1.a", "n1.b.c"} == set(await deep.content())
        assert {"n1.a", "n2.a"} == set(await flat.content())


async def test_a_broken_session_brings_the_whole_content_again(system: System, store: Store, second: Store, other: Bus) -> None:
    """And a second None: what is not repeated is gone, though no marker tells of it any more."""
    for key in ("gone", "changed", "kept"):
        await store.put(key, b"0")
    async with watching(second) as watcher:
        assert {"gone", "changed", "kept"} == set(await watcher.content())
        system.cut(other)
        await store.put("changed", b"1")
        await store.remove("gone", marker_s=1)
        await forgotten(store, "gone")
        system.restore(other)
        assert {"changed": b"1", "kept": b"0"} == await watcher.content()
        revision = await store.put("new", b"2")
        assert [Entry("new", b"2", revision)] == await watcher.changes(1)
        assert 2 == watcher.contents


async def test_a_watch_begun_without_a_broker_waits_for_it(system: System, store: Store) -> None:
    """It is no error that the connection is not there yet."""
    await store.put("a", b"1")
    async with system.bus(cut=True) as late, watching(KeyValue(late, f"b_{system.word}")) as watcher, anyio.create_task_group() as tasks:
        contents: list[dict[str, bytes | None]] = []

        async def watch() -> None:
            contents.append(await watcher.content())

        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        system.restore(late)
    assert [{"a": b"1"}] == contents


async def test_a_second_watch_ends_the_first(store: Store) -> None:
    """They would take each other's place for ever; the first one says so."""
    async with watching(store) as first, watching(store) as later:
        await first.content()
        await later.content()
        with pytest.raises(RuntimeError, match="KeyValue of its own"):
            await first.step()
        revision = await store.put("a", b"1")
        assert [Entry("a", b"1", revision)] == await later.changes(1)


async def test_a_watch_among_writers_ends_with_the_truth(store: Store, second: Store) -> None:
    """Keys that change and vanish while the content is read neither block it nor come out wrong."""
    writing = anyio.Event()
    done = anyio.Event()

    async def write() -> None:
        for number in range(400):
            await store.put(f"k.{number % 40}", str(number).encode())
            if number % 7 == 0:
                await store.remove(f"k.{number % 40}")
            if number == 100:
                writing.set()
        done.set()

    async with watching(second) as watcher, anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await writing.wait()
        await watcher.content()
        await done.wait()
        last = await store.revision()
        await watcher.until(lambda: watcher.revision >= last)
    expected = {f"k.{number % 40}": None if number % 7 == 0 else str(number).encode() for number in range(360, 400)}
    assert expected == watcher.state
    revisions = [entry.revision for entry in watcher.entries]
    assert sorted(set(revisions)) == revisions


async def test_who_watched_up_to_the_revision_has_seen_all(store: Store, second: Store) -> None:
    """The barrier: what was written before it was asked for is in what was watched."""
    async with watching(second) as watcher:
        await watcher.content()
        await store.put("a", b"1")
        await store.put("b", b"2")
        await store.remove("a")
        barrier = await second.revision()
        await watcher.until(lambda: watcher.revision >= barrier)
        assert {"a": None, "b": b"2"} == watcher.state


# -- other clients


async def test_other_clients_see_the_same(broker: Embedded) -> None:
    """A bucket is one for every NATS client: values, removals and compare-and-set, both ways."""
    system = NatsSystem(broker)
    async with system.bus() as bus, connected(broker) as client:
        await bus.provision([bucket(f"b_{system.word}")])
        ours, theirs = KeyValue(bus, f"b_{system.word}"), await client.jetstream().key_value(f"b_{system.word}")
        first = await ours.put("a", b"ours")
        assert (b"ours", first) == ((await theirs.get("a")).value, first)
        second = await theirs.update("a", b"theirs", last=first)
        assert Entry("a", b"theirs", second) == await ours.get("a")
        third = await ours.update("a", b"ours", second)
        with pytest.raises(KeyWrongLastSequenceError):
            await theirs.update("a", b"late", last=second)
        await ours.remove("a", third)
        with pytest.raises(KeyNotFoundError):
            await theirs.get("a")
        await theirs.put("a", b"again")
        await theirs.delete("a")
        assert Entry("a", None, third + 3) == await ours.get("a")
        await theirs.purge("a")
        assert Entry("a", None, third + 4) == await ours.get("a")


@asynccontextmanager
async def connected(broker: Embedded) -> AsyncIterator[Client]:
    """Give a client that shares no code with ours."""
    client = await nats.connect(broker.url)
    try:
        yield client
    finally:
        await client.close()
