"""`python -m tests.bench --isolation`: what one frozen QEMU among many costs the others, in rounds with and without it.

In a round with it its process stands (SIGSTOP), a command and a query of it hang, and one more of each is sent every second. All
others are suspended and resumed in turn meanwhile, a few at a time, and the time of each command is taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import perf_counter

import anyio
import msgspec

from orchestrator.protocol.error import WireError
from tests.bench.measure import percentile
from tests.e2e.frozen import Machines, machines

GOAL, WORST_S = 1.5, 1.0
MACHINES, AT_ONCE, FEWEST = 20, 4, 5
PAUSE_S = 1.0
WARM_S = 1.0


class Turn(msgspec.Struct, frozen=True):
    """One round: seconds that the commands of the others took."""

    frozen: bool
    times: list[float]

    @property
    def p95(self) -> float:
        """In seconds."""
        return percentile(self.times, 95)


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """All rounds; of each pair, how much slower the one with a frozen machine was; and the slowest of its commands, in seconds."""

    turns: list[Turn]
    ratio: float
    worst_s: float


async def isolation(seconds: float) -> Isolation:
    """Measure for about `seconds`, beginning and end not counted; each second pair in the opposite order."""
    turn_s = max(1.0, seconds / (2 * FEWEST))
    pairs: list[tuple[Turn, Turn]] = []
    with tempfile.TemporaryDirectory(prefix="vb") as home:
        async with machines(Path(home), MACHINES) as made:
            await _measured(made, WARM_S)
            for number in range(FEWEST):
                turns = [await _turn(made, turn_s, frozen=frozen) for frozen in ((False, True) if number % 2 == 0 else (True, False))]
                free, stuck = sorted(turns, key=lambda turn: turn.frozen)
                pairs.append((free, stuck))
    return judged(pairs)


def judged(pairs: Sequence[tuple[Turn, Turn]]) -> Isolation:
    """Compare pair by pair, the one without a frozen machine first, since a busy machine slows both."""
    return Isolation(
        turns=[turn for pair in pairs for turn in pair],
        ratio=median(stuck.p95 / free.p95 for free, stuck in pairs),
        worst_s=max(max(stuck.times) for _, stuck in pairs),
    )


def text(told: Isolation) -> str:
    """Return it for people."""
    lines = [f"{'':8} {'commands':>9} {'p50 ms':>8} {'p95 ms':>8} {'worst ms':>9}"]
    for turn in told.turns:
        name = "frozen" if turn.frozen else "free"
        figures = (median(turn.times), turn.p95, max(turn.times))
        lines.append(f"{name:8} {len(turn.times):>9} " + " ".join(f"{1e3 * value:>{8 + at // 2}.1f}" for at, value in enumerate(figures)))
    lines.append(f"one of {MACHINES} frozen: p95 of the others {told.ratio:.2f}× (goal ≤ {GOAL:g})")  # noqa: RUF001  the sign for times
    lines.append(f"one of {MACHINES} frozen: slowest command of the others {told.worst_s:.2f} s (goal ≤ {WORST_S:g})")
    return "\n".join(lines)


async def _turn(made: Machines, seconds: float, *, frozen: bool) -> Turn:
    if not frozen:
        return Turn(frozen=False, times=await _measured(made, seconds))
    name = made.names[0]
    made.freeze(name)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_bother, made, name)
            await anyio.sleep(PAUSE_S)  # the call hangs, and its command has met its deadline
            times = await _measured(made, seconds)
            tasks.cancel_scope.cancel()
    finally:
        made.thaw(name)
    await made.client.resume(name)  # behind all that hung
    return Turn(frozen=True, times=times)


async def _bother(made: Machines, name: str) -> None:
    """Ask of a frozen machine what it cannot do, again and again."""
    client = made.client
    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(_refused, lambda: client.suspend(name, timeout=PAUSE_S / 2))
            tasks.start_soon(_refused, lambda: client.stats(name))
            await anyio.sleep(PAUSE_S)


async def _refused(ask: Callable[[], Awaitable[object]]) -> None:
    with suppress(WireError):
        await ask()


async def _measured(made: Machines, seconds: float) -> list[float]:
    """Suspend and resume all but the first, a few at a time; return the seconds that each command took."""
    times: list[float] = []
    end = perf_counter() + seconds

    async def drive(names: Sequence[str]) -> None:
        while perf_counter() < end:
            for name in names:
                for verb in ("suspend", "resume"):
                    began = perf_counter()
                    await made.client.call(name, verb)
                    times.append(perf_counter() - began)

    async with anyio.create_task_group() as tasks:
        for first in range(1, AT_ONCE + 1):
            tasks.start_soon(drive, made.names[first::AT_ONCE])
    return times
