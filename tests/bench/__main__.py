"""`python -m tests.bench --seconds N`: one run, alternating rounds, medians, ratios; asserts nothing of time."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from time import monotonic
from typing import Any

import anyio
import msgspec
import structlog

from orchestrator.bus.port import BusError
from orchestrator.protocol.error import WireError
from tests.bench.clients import NoEffect
from tests.bench.isolation import isolation
from tests.bench.isolation import text as isolation_text
from tests.bench.ledger import Cost, cost
from tests.bench.measure import measured
from tests.bench.rows import Figures, Row, Verdict, figures, rounds, rows, verdicts
from tests.bench.stage import DOMAINS, NotStarted, staged
from tests.bench.writes import Writes, counted

LATENCY_GOAL, THROUGHPUT_GOAL = 1.5, 0.6
TURN_S, FEWEST = 0.7, 3
"""Seconds that a row gets a turn, and turns that it gets at least; where time is short the turns are."""

WARM_S = 0.2
END_S = 2.0
PARTS = ("client", "broker", "coordinator", "worker")
CANNOT, INTERRUPTED = 2, 130


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of a run."""

    seconds: float
    rounds: int
    in_flight: int
    rows: list[Figures]
    verdicts: list[Verdict]
    writes: list[Writes]
    ledger: Cost


async def bench(seconds: float) -> Report:
    """Measure for about `seconds`, all included."""
    began = monotonic()
    async with staged() as stage, rows(stage) as all_rows:
        for row in all_rows:
            await measured(row.probe, WARM_S, row.processes)
        writes = [await counted(row, stage.server) for row in all_rows if row.name.startswith(("floor", "ours"))]
        ledger = await cost()
        count, turn_s = _plan(all_rows, seconds - END_S - (monotonic() - began))
        told = await rounds(all_rows, count, turn_s)
    took = round(monotonic() - began, 1)
    return Report(seconds=took, rounds=count, in_flight=DOMAINS, rows=figures(told), verdicts=verdicts(told), writes=writes, ledger=ledger)


def _plan(all_rows: list[Row], left_s: float) -> tuple[int, float]:
    """Return how many turns each row gets in the time left, and how long each is."""
    count = max(FEWEST, int(left_s / (TURN_S * len(all_rows))))
    return count, max(left_s / (count * len(all_rows)), 0.05)


def table(report: Report) -> str:
    """Return the report for people."""
    heads = f"{'':18} {'p50 µs':>9} {'p95 µs':>9} {f'/s at {report.in_flight}':>10} {'p50 × floor':>12} {'/s % floor':>11}"  # noqa: RUF001  the sign for times
    lines = [f"{heads}   CPU µs a command at {report.in_flight}: {', '.join(PARTS)}"]
    against = {f"ours {verdict.way}": verdict for verdict in report.verdicts}
    for row in report.rows:
        verdict = against.get(row.name)
        ratios = f"{verdict.latency:>12.2f} {verdict.throughput:>11.0%}" if verdict else f"{'':12} {'':11}"
        cpu = " ".join(f"{row.cpu_us[part]:>7.0f}" if part in row.cpu_us else f"{'':7}" for part in PARTS)
        lines.append(f"{row.name:18} {row.p50_us:>9,.1f} {row.p95_us:>9,.1f} {row.rate:>10,.0f} {ratios}   {cpu}")
    lines.append("")
    lines += [f"{writes.name}: {writes.text()}" for writes in report.writes]
    lines += ["", *report.ledger.lines(next(row.p50_us for row in report.rows if row.name == "bare libvirt call")), ""]
    for verdict in report.verdicts:
        lines.append(f"{verdict.way}: ours/floor p50 {verdict.latency:.2f}× (goal ≤ {LATENCY_GOAL:g})")  # noqa: RUF001  the same
        lines.append(f"{verdict.way}: throughput {verdict.throughput * 100:.0f} % (goal ≥ {THROUGHPUT_GOAL * 100:.0f})")
    lines.append(f"{report.rounds} rounds, {report.seconds:g} s in all")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark with the options of this process; return the exit code, not 0 only where it could not be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What a command costs, side by side.")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long it may take (default: %(default)g)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--isolation", action="store_true", help="measure instead what one frozen QEMU among many costs the others")
    options = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING), logger_factory=structlog.WriteLoggerFactory(sys.stderr)
    )
    uvloop = importlib.util.find_spec("uvloop") is not None
    measure, told = (isolation, isolation_text) if options.isolation else (bench, table)
    try:
        report: Any = anyio.run(measure, options.seconds, backend_options={"use_uvloop": uvloop})
    except KeyboardInterrupt:
        return INTERRUPTED
    except (NotStarted, NoEffect, BusError, WireError) as error:
        sys.stderr.write(f"the benchmark could not be run: {error}\n")
        return CANNOT
    sys.stdout.write(f"{msgspec.json.encode(report).decode() if options.json else told(report)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
