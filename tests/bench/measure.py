"""Measuring one row: one command at a time, and many in flight."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

import msgspec

Call = Callable[[str, str], Awaitable[None]]
"""Has a verb run on the domain with a UUID."""


class Domains:
    """Domains of one hypervisor, each suspended and resumed in turn, so that every call has an effect. They run at first."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self.uuids = uuids
        self._next = dict.fromkeys(uuids, "suspend")

    def turn(self, uuid: str) -> str:
        """Return the verb whose turn it is."""
        verb = self._next[uuid]
        self._next[uuid] = "resume" if verb == "suspend" else "suspend"
        return verb


class Probe(Protocol):
    """What can be measured."""

    async def singly(self, seconds: float) -> list[float]:
        """Return the seconds that each of many commands took, one after another."""

    async def at_once(self, seconds: float) -> tuple[int, float]:
        """Return how many commands were done in how many seconds, with one in flight for each domain."""


class Blocking:
    """A plain call, with no loop around it; more than one at a time is no question."""

    def __init__(self, call: Callable[[str, str], object], domains: Domains) -> None:
        self._call = call
        self._domains = domains

    async def singly(self, seconds: float) -> list[float]:
        """Time single calls."""
        call, uuid, times = self._call, self._domains.uuids[0], []
        end = perf_counter() + seconds
        while perf_counter() < end:
            verb = self._domains.turn(uuid)
            began = perf_counter()
            call(uuid, verb)
            times.append(perf_counter() - began)
        return times

    async def at_once(self, seconds: float) -> tuple[int, float]:
        """Count calls."""
        began = perf_counter()
        return len(await self.singly(seconds)), perf_counter() - began


class Awaited:
    """A command that is awaited."""

    def __init__(self, call: Call, domains: Domains) -> None:
        self._call = call
        self._domains = domains

    async def singly(self, seconds: float) -> list[float]:
        """Time single commands to the first domain."""
        return await self._repeat(self._domains.uuids[0], perf_counter() + seconds)

    async def at_once(self, seconds: float) -> tuple[int, float]:
        """Count commands to all domains."""
        began = perf_counter()
        times = await asyncio.gather(*(self._repeat(uuid, began + seconds) for uuid in self._domains.uuids))
        return sum(map(len, times)), perf_counter() - began

    async def _repeat(self, uuid: str, end: float) -> list[float]:
        times = []
        while (began := perf_counter()) < end:
            await self._call(uuid, self._domains.turn(uuid))
            times.append(perf_counter() - began)
        return times


class Round(msgspec.Struct, frozen=True):
    """One turn of one row. p50, p95: seconds, one at a time. rate: commands a second, many in flight.

    cpu: seconds of processor that each process then spent a command.
    """

    p50: float
    p95: float
    rate: float
    cpu: dict[str, float]


async def measured(probe: Probe, seconds: float, pids: Mapping[str, int]) -> Round:
    """Measure one turn, for `seconds` in all: one half singly, one half at once."""
    times = await probe.singly(seconds / 2)
    before = {name: processor_s(pid) for name, pid in pids.items()}
    done, took = await probe.at_once(seconds / 2)
    cpu = {name: (processor_s(pid) - before[name]) / done for name, pid in pids.items()}
    return Round(p50=statistics.median(times), p95=percentile(times, 95), rate=done / took, cpu=cpu)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value below which `percent` of the values lie."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


def processor_s(pid: int) -> float:
    """Return the seconds of processor that the living threads of a process have had; 0 where the kernel does not tell (only Linux does)."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(map(_thread_s, tasks.iterdir())) if tasks.exists() else 0.0


def _thread_s(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return 0.0
