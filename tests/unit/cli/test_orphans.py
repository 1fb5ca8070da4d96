"""Laws of `virtbus up` as the parent of what a killed worker leaves behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
from orchestrator.cli import orphans

orphans.adopt()

def orphan(name):
    # a child that ends at once, and leaves one of its own that ends a little later under another name
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            time.sleep(0.2)
            Path("/proc/self/comm").write_text(name)
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)

def children():
    return {pid for tid in os.listdir("/proc/self/task") for pid in Path(f"/proc/self/task/{tid}/children").read_text().split()}

for name in sys.argv[1:]:
    orphan(name)
until = time.monotonic() + 20
while children() and time.monotonic() < until:
    time.sleep(0.02)
own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
print(len(children() - {str(own.pid)}), own.wait())
"""


@pytest.mark.parametrize("names", [["qemu-system-x"], ["python"], ["python", "qemu-system-x"], ["qemu-system-x", "sh", "qemu-system-x"]])
def test_whatever_is_left_behind_is_reaped_and_a_child_of_ones_own_is_not(names: list[str]) -> None:
    """One that nobody waits for must not stand before the others: libvirt takes an end that is not reaped for none."""
    done = subprocess.run([sys.executable, "-c", FAMILY, *names], capture_output=True, text=True, timeout=60, check=True)
    assert "0 7" == done.stdout.strip()
