"""Buckets in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from orchestrator.bus.memory import MemoryBus
from orchestrator.bus.port import Unavailable
from orchestrator.engine.table import Table
from orchestrator.store.kv import KeyValue
from tests.unit.engine.world import SUBJECTS, World, world

pytestmark = pytest.mark.anyio


class Watched:
    """A table of numbers over a bus of its own, and what it said of changes."""

    def __init__(self, here: World) -> None:
        self.bus = MemoryBus(here.broker, name="watched")
        self.said: list[tuple[str, int | None, int | None]] = []
        self.table: Table[int] = Table(
            KeyValue(self.bus, SUBJECTS.bucket("specs")), self.bus.link, int, lambda *change: self.said.append(change)
        )

    def values(self) -> dict[str, int]:
        """Return what the table holds."""
        return {key: row.value for key, row in self.table.rows.items()}


@asynccontextmanager
async def watched(here: World) -> AsyncIterator[Watched]:
    """Run a table."""
    made = Watched(here)
    async with made.bus, anyio.create_task_group() as tasks:
        await made.bus.link.up()
        tasks.start_soon(made.table.run)
        yield made
        tasks.cancel_scope.cancel()


async def test_it_holds_what_is_there_and_what_comes() -> None:
    """And tells each change once."""
    async with world() as here:
        specs = here.bucket("specs")
        await specs.put("a", b"1")
        async with watched(here) as made:
            await made.table.filled()
            await specs.put("b", b"2")
            await specs.put("a", b"3")
            await specs.put("a", b"3")
            await specs.remove("b")
            await made.table.caught_up()
            assert {"a": 3} == made.values()
            assert (3, None) == (made.table.get("a"), made.table.get("b"))
            assert [("a", None, 1), ("b", None, 2), ("a", 1, 3), ("b", 2, None)] == made.said


async def test_behind_the_barrier_all_that_was_written_before_is_seen() -> None:
    """Each time."""
    async with world() as here, watched(here) as made:
        for number in range(50):
            revision = await here.bucket("specs").put(f"k{number % 7}", str(number).encode())
            await made.table.caught_up()
            assert (number, revision) == (made.table.get(f"k{number % 7}"), made.table.rows[f"k{number % 7}"].revision)


async def test_what_went_while_the_connection_was_broken_goes_from_the_table() -> None:
    """Even if nothing is left that tells of it."""
    async with world() as here:
        specs = here.bucket("specs")
        await specs.put("stays", b"1")
        await specs.put("goes", b"2")
        async with watched(here) as made:
            await made.table.caught_up()
            here.broker.cut(made.bus)
            await here.bus.purge("KV_virt_specs", "$KV.virt_specs.goes", 10**6)
            await specs.put("stays", b"3")
            here.broker.restore(made.bus)
            await here.until(lambda: made.values() == {"stays": 3})
            assert ("goes", 2, None) in made.said


async def test_without_a_connection_the_barrier_says_so_and_the_rows_stay() -> None:
    """Old knowledge is better than none, where it is no answer."""
    async with world() as here:
        await here.bucket("specs").put("a", b"1")
        async with watched(here) as made:
            await made.table.filled()
            here.broker.cut(made.bus)
            with pytest.raises(Unavailable):
                await made.table.caught_up()
            assert {"a": 1} == made.values()


async def test_an_entry_that_vanished_before_the_watch_came_to_it_does_not_hold_the_barrier_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is read anew."""
    async with world() as here, watched(here) as made:
        await made.table.filled()
        last = await here.bucket("specs").put("a", b"1")
        await made.table.caught_up()

        async def ahead(_: object) -> int:
            return last + 1

        monkeypatch.setattr(KeyValue, "revision", ahead)
        with anyio.fail_after(3):
            await made.table.caught_up()
        assert {"a": 1} == made.values()


async def test_what_cannot_be_read_is_left_out() -> None:
    """It takes away what was there before."""
    async with world() as here, watched(here) as made:
        await here.bucket("specs").put("a", b"1")
        await made.table.caught_up()
        await here.bucket("specs").put("a", b'"one"')
        await made.table.caught_up()
        assert {} == made.values()


async def test_a_bucket_that_is_not_there_yet_is_waited_for() -> None:
    """Somebody else may be about to make it."""
    async with world() as here:
        made = Watched(here)
        made.table = Table(KeyValue(made.bus, "later"), made.bus.link, int, lambda *_: None)
        async with made.bus, anyio.create_task_group() as tasks:
            tasks.start_soon(made.table.run)
            await anyio.sleep(0.05)
            later = [here.renamed(config, "KV_later", "$KV.later.>") for config in here.configs if config.name == "KV_virt_specs"]
            await here.bus.provision(later)
            with anyio.fail_after(3):
                await made.table.filled()
            tasks.cancel_scope.cancel()
