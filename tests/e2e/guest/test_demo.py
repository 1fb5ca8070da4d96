"""`make demo` keeps its promise: everything it looks at holds, and nothing of it is left."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 100.0

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libvirt") is None, reason="libvirt-python is not installed")


def show(*arguments: str, mark: str = "") -> subprocess.Popen[str]:
    """Start the demo; `mark` is handed on to all that it starts."""
    command = [sys.executable, "-m", "demo", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "MARK": mark}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def bearers(mark: str) -> list[str]:
    """Return the processes that were handed `mark`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is not ours to look at
            if f"MARK={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
    return found


def test_every_check_holds_on_the_test_driver() -> None:
    """The whole show, with pretended domains: exit code 0, and all checks said to hold."""
    process = show("--test-driver")
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert "11 of 11 checks held" in said


@pytest.mark.slow
@pytest.mark.hypervisor
@pytest.mark.skipif(os.geteuid() != 0, reason="QEMU inside a worker needs root")
def test_every_check_holds_on_the_best_that_this_machine_has() -> None:
    """The whole show, on real QEMU where it is."""
    process = show()
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said


def test_an_interrupted_show_leaves_nothing() -> None:
    """Ctrl-C while the system runs: all processes are gone, and no traceback is shown."""
    mark = secrets.token_hex(8)
    process = show("--test-driver", mark=mark)
    assert process.stdout is not None
    begun = list(takewhile(lambda line: "workers up" not in line, process.stdout))
    assert len(bearers(mark)) > 3, begun
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert bearers(mark) == []
