"""The rows of the table, what each is compared with, and the rounds in which they take turns."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Any

import msgspec

from tests.bench import floor
from tests.bench.clients import FloorClient, OurClient, Ways
from tests.bench.measure import Awaited, Blocking, Domains, Probe, Round, measured
from tests.bench.stage import Stage, uuids

WAYS = ("run", "api", "cmd")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row. processes: whose processor time counts for it, by the part that each plays."""

    name: str
    probe: Probe
    processes: dict[str, int]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The medians of a row's rounds; times in microseconds, `rate` in commands a second."""

    name: str
    p50_us: float
    p95_us: float
    rate: float
    cpu_us: dict[str, float]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Ours against the floor, medians of the ratios of the rounds. latency: p50, times the floor's. throughput: share of the floor's."""

    way: str
    latency: float
    throughput: float


class Thread:
    """Calls through a daemon thread that drains a queue."""

    def __init__(self, call: Callable[[str, str], object]) -> None:
        self._call = call
        self._jobs: queue.SimpleQueue[tuple[str, str, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._drain, args=(asyncio.get_running_loop(),), daemon=True).start()

    async def call(self, uuid: str, verb: str) -> None:
        """Have the thread make the call."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put((uuid, verb, future))
        await future

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            uuid, verb, future = self._jobs.get()
            self._call(uuid, verb)
            loop.call_soon_threadsafe(future.set_result, None)


@asynccontextmanager
async def rows(stage: Stage) -> AsyncIterator[list[Row]]:
    """Give all rows, in the order of the table."""
    own = floor.opened(stage.hypervisor)
    pids = stage.pids
    basis = {"client": pids["client"], "broker": pids["broker"]}

    def call(uuid: str, verb: str) -> object:
        return floor.call(own[uuid], verb)

    async with AsyncExitStack() as connections:
        plain = await connections.enter_async_context(FloorClient.connected(stage.server))
        ours = await connections.enter_async_context(OurClient.connected(stage.server))
        bare = Domains(uuids())
        found = [
            Row(name="bare libvirt call", probe=Blocking(call, bare), processes={"client": pids["client"]}),
            Row(name="through a thread", probe=Awaited(Thread(call).call, bare), processes={"client": pids["client"]}),
            Row(
                name="request/reply",
                probe=Awaited(plain.call, Domains(uuids())),
                processes=basis | {"worker": pids["floor responder"]},
            ),
        ]
        floor_parts = basis | {"coordinator": pids["floor coordinator"], "worker": pids["floor worker"]}
        our_parts = basis | {"coordinator": pids["coordinator"], "worker": pids["worker"]}
        floors, real = Domains(uuids()), Domains(uuids())
        for way in WAYS:
            found.append(Row(name=f"floor {way}", probe=Awaited(_way(plain, way), floors), processes=floor_parts))
            found.append(Row(name=f"ours {way}", probe=Awaited(_way(ours, way), real), processes=our_parts))
        yield found


def _way(client: Ways, name: str) -> Callable[[str, str], Any]:
    found: Callable[[str, str], Any] = getattr(client, name)
    return found


async def rounds(all_rows: list[Row], count: int, seconds: float) -> dict[str, list[Round]]:
    """Let the rows take turns `count` times, `seconds` a row and turn, every second time in the opposite order."""
    told: dict[str, list[Round]] = {row.name: [] for row in all_rows}
    for number in range(count):
        for row in all_rows if number % 2 == 0 else reversed(all_rows):
            told[row.name].append(await measured(row.probe, seconds, row.processes))
    return told


def figures(told: dict[str, list[Round]]) -> list[Figures]:
    """Return each row's medians."""
    return [
        Figures(
            name=name,
            p50_us=median(each.p50 for each in of_row) * 1e6,
            p95_us=median(each.p95 for each in of_row) * 1e6,
            rate=median(each.rate for each in of_row),
            cpu_us={part: median(each.cpu[part] for each in of_row) * 1e6 for part in of_row[0].cpu},
        )
        for name, of_row in told.items()
    ]


def verdicts(told: dict[str, list[Round]]) -> list[Verdict]:
    """Compare ours with the floor, round by round, since a busy machine slows both."""
    found = []
    for way in WAYS:
        pairs = list(zip(told[f"ours {way}"], told[f"floor {way}"], strict=True))
        latency = median(ours.p50 / base.p50 for ours, base in pairs)
        found.append(Verdict(way=way, latency=latency, throughput=median(ours.rate / base.rate for ours, base in pairs)))
    return found
