"""Laws of the figures, and that the whole benchmark still runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.measure import Domains, Round, percentile
from tests.bench.rows import WAYS, figures, verdicts

ROOT = Path(__file__).parents[2]


def turn(p50: float, rate: float) -> Round:
    """Return a turn in which only these two figures matter."""
    return Round(p50=p50, p95=2 * p50, rate=rate, cpu={"worker": p50})


def test_a_domain_is_suspended_and_resumed_in_turn() -> None:
    """So every call has an effect, whichever domain's turn it is."""
    domains = Domains(["a", "b"])

    assert ["suspend", "suspend", "resume", "suspend"] == [domains.turn(uuid) for uuid in ("a", "b", "a", "a")]


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 3.0), (95, 5.0), (100, 5.0)])
def test_a_percentile_is_one_of_the_values(percent: int, expected: float) -> None:
    """Whatever their order, and also at the ends."""
    assert expected == percentile([3.0, 1.0, 5.0, 2.0, 4.0], percent)


def test_figures_are_medians_in_microseconds() -> None:
    """One turn that was disturbed changes nothing."""
    [row] = figures({"ours run": [turn(0.002, 1_000), turn(0.9, 1), turn(0.002, 1_000)]})

    assert (2_000.0, 4_000.0, 1_000, {"worker": 2_000.0}) == (row.p50_us, row.p95_us, row.rate, row.cpu_us)


def test_ours_is_compared_with_the_floor_turn_by_turn() -> None:
    """So a machine that is busy for a while, and slows both, does not change the ratio."""
    told = {f"floor {way}": [turn(0.001, 2_000), turn(0.010, 200), turn(0.001, 2_000)] for way in WAYS}
    told |= {f"ours {way}": [turn(0.0015, 1_200), turn(0.015, 120), turn(0.0015, 1_200)] for way in WAYS}

    assert [(way, 1.5, 0.6) for way in WAYS] == [(one.way, round(one.latency, 6), round(one.throughput, 6)) for one in verdicts(told)]


@pytest.mark.slow
@pytest.mark.hypervisor
def test_the_benchmark_runs_and_floor_and_ours_write_the_same() -> None:
    """A short run tells every row, and that a command leaves as much in the broker's logs here as there."""
    command = [sys.executable, "-m", "tests.bench", "--seconds", "8", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    assert 0 == ran.returncode, ran.stderr
    told = json.loads(ran.stdout)
    writes = {row["name"]: row["logs"] for row in told["writes"]}
    assert [writes[f"floor {way}"] for way in WAYS] == [writes[f"ours {way}"] for way in WAYS]
    assert {"bare libvirt call", "through a thread", "request/reply", *writes} == {row["name"] for row in told["rows"]}
