"""What the ledger costs a command: its three journal commits, with and without `--durable`, beside the bare call and a bare sync."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

from orchestrator.protocol.domain import Observed
from tests.bench.measure import percentile
from workers.journal.port import Begun, Ended, Entry, OutboxEvent, Position, Received, Told
from workers.journal.sqlite import SqliteJournal

TURN_S = 0.25
AT_ONCE = 64
EPOCH = "01JD0000000000000000000000"
UUID = "00000000-0000-4000-8000-000000000000"


class Commits(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds, medians. command: all three commits, one command after another. busy: a command with many in flight, at their rate."""

    name: str
    received_us: float
    begun_us: float
    ended_us: float
    command_us: float
    command_p95_us: float
    busy_us: float


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What journals cost here. sync_us: one sync of one page, as the disk under the temporary files has it."""

    sync_us: float
    journals: list[Commits]

    def lines(self, bare_us: float) -> list[str]:
        """Return it for people; `bare_us` is what a bare call takes."""
        heads = ("received", "begun", "ended", "all three", "p95", f"at {AT_ONCE}", "× bare call")  # noqa: RUF001  the sign for times
        told = [f"{'ledger, µs a command':24}" + "".join(f"{head:>12}" for head in heads)]
        for each in self.journals:
            figures = (each.received_us, each.begun_us, each.ended_us, each.command_us, each.command_p95_us, each.busy_us)
            told.append(f"{each.name:24}" + "".join(f"{figure:>12,.1f}" for figure in figures) + f"{each.command_us / bare_us:>12,.1f}")
        return [*told, f"(one bare sync of a page there: {self.sync_us:,.0f} µs)"]


async def cost() -> Cost:
    """Measure both kinds of journal in a folder that is removed again."""
    with tempfile.TemporaryDirectory(prefix="virtbus-bench-") as name:
        folder = Path(name)
        journals = [await _commits(folder, "journal", durable=False), await _commits(folder, "journal --durable", durable=True)]
        return Cost(sync_us=_sync(folder / "page"), journals=journals)


async def _commits(folder: Path, name: str, *, durable: bool) -> Commits:
    journal = SqliteJournal(folder / name.replace(" ", "-") / "journal.db", durable=durable)
    journal.open(0.0)
    try:
        await _command(journal, 1)
        times, number, end = [], 1, perf_counter() + TURN_S
        while perf_counter() < end:
            number += 1
            times.append(await _command(journal, number))
        busy_us = await _busy(journal, number)
    finally:
        journal.close()
    received, begun, ended = (median(of) * 1e6 for of in zip(*times, strict=True))
    whole = [sum(each) for each in times]
    return Commits(
        name=name,
        received_us=received,
        begun_us=begun,
        ended_us=ended,
        command_us=median(whole) * 1e6,
        command_p95_us=percentile(whole, 95) * 1e6,
        busy_us=busy_us,
    )


async def _command(journal: SqliteJournal, number: int) -> tuple[float, float, float]:
    """Commit what a `suspend` commits; return the seconds that each of the three took."""
    id, at = f"c{number}", Position(EPOCH, 2 * number)
    subject = f"virt.v1.run.n1.default.{UUID}.suspend"
    entry = Entry(
        project="default", id=id, sequence=number, subject=subject, verb="suspend", uuid=UUID, digest="0" * 32, body=b'{"id":"c"}',
        headers={}, deadline=1.0,
    )  # fmt: skip
    events = tuple(OutboxEvent(Position(EPOCH, at.sequence - back), subject, b"e" * 500) for back in (1, 0))
    began = perf_counter()
    await journal.commit(Received(entry))
    received = perf_counter()
    await journal.commit(Begun("default", id))
    begun = perf_counter()
    await journal.commit(Told(events, {UUID: _observed()}), Ended("default", id, b"r" * 250, at, 0.0))
    return received - began, begun - received, perf_counter() - begun


async def _busy(journal: SqliteJournal, number: int) -> float:
    """Return the microseconds from one command to the next with many in flight."""
    began = perf_counter()

    async def run(lane: int) -> int:
        done = 0
        while perf_counter() < began + TURN_S:
            done += 1
            await _command(journal, number + lane + done * AT_ONCE)
        return done

    done = sum(await asyncio.gather(*map(run, range(AT_ONCE))))
    return (perf_counter() - began) / done * 1e6


def _observed() -> Observed:
    return Observed(
        uuid=UUID, name="d00", project="default", node="n1", hypervisor="test:///default", type="test", state="paused",
        reason="user", role="owner",
        persistent=True, autostart=False, vcpus=1, memory_kib=8192, labels={}, generation=0, incarnation=None, epoch=EPOCH,
        sequence=f"{1:016d}", updated="2026-01-01T00:00:00.000000Z",
    )  # fmt: skip


def _sync(path: Path) -> float:
    """Return the median microseconds that a write of a page and its sync take."""
    times = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(21):
            os.pwrite(descriptor, b"p" * 4096, 0)
            began = perf_counter()
            os.fdatasync(descriptor)
            times.append(perf_counter() - began)
    finally:
        os.close(descriptor)
    return median(times) * 1e6
