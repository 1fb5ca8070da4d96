"""Laws of what follows a stored event: a domain's state key first, then its results; no domain waits for another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Message, Unavailable
from orchestrator.protocol import codec
from orchestrator.protocol.domain import Observed
from orchestrator.store.port import Entry
from tests.unit.worker.world import NODE, SUBJECTS, WEB1, WEB2
from workers.engine.outbox import Effect, Waiting
from workers.engine.projection import Projection
from workers.journal.port import OutboxEvent, Position

pytestmark = pytest.mark.anyio

FAR = 1e12


class Bucket:
    """A bucket whose writes wait until they are let through, or fail as often as told."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str | None]] = []
        self.doors: dict[str, anyio.Event] = {}
        self.failures = 0

    async def put(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Note the write, then wait at the key's door, if it has one."""
        del ttl_s
        self.begun.append((key, codec.decode(value, Observed).state))
        return await self._through(key)

    async def remove(self, key: str, revision: int | None = None, *, marker_s: int = 0) -> None:
        """Note the removal, then wait likewise."""
        del revision, marker_s
        self.begun.append((key, None))
        await self._through(key)

    async def get(self, key: str) -> Entry | None:
        """Not asked here."""
        raise NotImplementedError(key)

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int = 0) -> int:
        """Not asked here."""
        raise NotImplementedError(key)

    def watch(self, keys: str = ">") -> AsyncGenerator[list[Entry] | None]:
        """Not asked here."""
        raise NotImplementedError(keys)

    async def revision(self) -> int:
        """Not asked here."""
        raise NotImplementedError

    async def _through(self, key: str) -> int:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the broker is away")
        if key in self.doors:
            await self.doors[key].wait()
        return len(self.begun)


class Scene:
    """A projection, its bucket, and the results that came out of it."""

    def __init__(self, projection: Projection, bucket: Bucket) -> None:
        self.projection = projection
        self.bucket = bucket
        self.results: list[str] = []
        self._came = anyio.Event()

    def hear(self, message: Message) -> None:
        """Take a result."""
        self.results.append(message.subject.rpartition(".")[2])
        self._came.set()

    async def result(self, id: str) -> None:
        """Wait for a result."""
        with anyio.fail_after(5):
            while id not in self.results:
                self._came = anyio.Event()
                await self._came.wait()


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Run a projection on a memory bus."""
    broker, bucket = MemoryBroker(), Bucket()
    async with MemoryBus(broker, name="worker") as bus, MemoryBus(broker, name="client") as client, anyio.create_task_group() as tasks:
        made = Scene(Projection(bus, bucket, NODE, {}, [], clock=lambda: 0.0), bucket)
        async with client.listen(SUBJECTS.results, made.hear):
            tasks.start_soon(made.projection.run)
            await anyio.wait_all_tasks_blocked()
            yield made
            tasks.cancel_scope.cancel()


def key(uuid: str) -> str:
    """Return a domain's state key."""
    return f"{NODE}.default.{uuid}"


def event(uuid: str, state: str | None = None, ends: str | None = None) -> Waiting:
    """Return an event that brings a new state, or ends a command, or both."""
    observed = seen(uuid, state) if state is not None else None
    result = (SUBJECTS.res(NODE, "default", ends), b"{}", FAR) if ends is not None else None
    place = OutboxEvent(Position("E", 1), SUBJECTS.evt(NODE, "default", uuid, "lifecycle.started"), b"")
    return Waiting(place, Effect(state=("default", uuid, observed) if observed is not None else None, result=result))


def seen(uuid: str, state: str) -> Observed:
    """Return an observed domain."""
    return codec.convert(
        {
            "uuid": uuid, "name": "web1", "project": "default", "node": NODE, "hypervisor": "test:///default", "type": "test",
            "state": state, "reason": "", "persistent": True, "autostart": False, "vcpus": 1, "memory_kib": 1, "labels": {},
            "generation": 0, "incarnation": None, "role": "owner", "epoch": "E", "sequence": "1", "updated": "",
        },
        Observed,
        field="observed",
    )  # fmt: skip


async def test_a_result_waits_for_the_state_that_came_before_it() -> None:
    """Also where the state came with an earlier event of the same command."""
    async with scene() as on:
        on.bucket.doors[key(WEB1)] = anyio.Event()
        on.projection.stored([event(WEB1, "running"), event(WEB1, ends="c1")])
        await anyio.wait_all_tasks_blocked()
        assert ([(key(WEB1), "running")], []) == (on.bucket.begun, on.results)
        on.bucket.doors[key(WEB1)].set()
        await on.result("c1")


async def test_no_domain_waits_for_another() -> None:
    """One whose write hangs holds up itself alone."""
    async with scene() as on:
        on.bucket.doors[key(WEB1)] = anyio.Event()
        on.projection.stored([event(WEB1, "running", "c1"), event(WEB2, "running", "c2")])
        await on.result("c2")
        on.projection.stored([event(WEB2, "paused", "c3")])
        await on.result("c3")
        assert ["c2", "c3"] == on.results


async def test_states_are_coalesced_and_results_are_not() -> None:
    """What came while a write was under way is written once, as it is last; each command still gets its answer, after it."""
    async with scene() as on:
        door = on.bucket.doors[key(WEB1)] = anyio.Event()
        on.projection.stored([event(WEB1, "running", "c1")])
        await anyio.wait_all_tasks_blocked()
        on.projection.stored([event(WEB1, "paused", "c2"), event(WEB1, "running", "c3"), event(WEB1, "shutoff", "c4")])
        await anyio.wait_all_tasks_blocked()
        assert [(key(WEB1), "running")] == on.bucket.begun
        door.set()
        await on.result("c4")
        assert [(key(WEB1), "running"), (key(WEB1), "shutoff")] == on.bucket.begun
        assert ["c1", "c2", "c3", "c4"] == on.results


async def test_a_write_that_failed_is_made_again_before_its_result() -> None:
    """With the newest state that there is by then."""
    async with scene() as on:
        on.bucket.failures = 2
        on.projection.stored([event(WEB1, "running", "c1")])
        await anyio.wait_all_tasks_blocked()
        on.projection.stored([event(WEB1, "paused", "c2")])
        await on.result("c2")
        assert ("paused", ["c1", "c2"]) == (on.bucket.begun[-1][1], on.results)


async def test_more_domains_than_are_written_at_a_time_all_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that had to wait go on when one before them is done."""
    monkeypatch.setattr("workers.engine.projection.AT_ONCE", 1)
    async with scene() as on:
        door = on.bucket.doors[key(WEB1)] = anyio.Event()
        on.projection.stored([event(WEB1, "running", "c1"), event(WEB2, "running", "c2")])
        await anyio.wait_all_tasks_blocked()
        assert [(key(WEB1), "running")] == on.bucket.begun
        door.set()
        await on.result("c2")
        assert ["c1", "c2"] == on.results
