"""A short torture of real processes: the long form is `make torture SECONDS=120`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.fleet import PROJECT_ROOT
from tests.hypervisors import unavailable
from tests.torture import network

MISSING = unavailable() or network.missing()
SECONDS = 20

pytestmark = [
    pytest.mark.hypervisor,
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=f"torture: {MISSING}"),
]


@pytest.mark.timeout(600)
def test_a_tortured_installation_keeps_all_laws(tmp_path: Path) -> None:
    """Random commands, changes behind our back and faults of all kinds, from a seed that is printed; then the audit."""
    words = ["--seconds", str(SECONDS), "--evidence", str(tmp_path), "--seed", os.environ.get("TORTURE_SEED", "0")]
    run = subprocess.run(
        [sys.executable, "-m", "tests.torture", *words],
        check=False, capture_output=True, text=True, cwd=PROJECT_ROOT, timeout=540,
    )  # fmt: skip
    print(run.stdout)
    assert 0 == run.returncode, f"{run.stdout}\n{run.stderr}"
    assert " lost 0, two outcomes 0, doubled 0, undone 0, out of order 0, holes 0, wrong state 0, wrong results 0," in run.stdout
