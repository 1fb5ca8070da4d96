"""What other people's tests do with it, in projects of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

CONFTEST = """
import pytest

pytest_plugins = ["workers.testing.plugin"]

@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time
"""

EMBEDDERS = """
import anyio
import pytest
from orchestrator.event import Lifecycle
from workers.testing import DOMAIN_XML

pytestmark = pytest.mark.anyio

async def test_web_is_started_again(fleet, events, hypervisor):
    await fleet.client.create_xml("web1", DOMAIN_XML, node="n1")
    started = await events.expect("lifecycle.started", domain="web1")
    hypervisor.machine.crash(started.subject)
    stopped = await events.expect("lifecycle.stopped", domain="web1")
    assert (type(stopped), stopped.detail) == (Lifecycle, "failed")

async def test_the_logs_are_there(bus):
    assert await bus.last("VIRT_EVT", "virt.v1.evt.>") is None

async def test_a_day_passes():
    await anyio.sleep(24 * 3600)

async def test_nobody_ever_comes(bus):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)

def test_what_is_not_async_runs_too(hypervisor):
    assert hypervisor.calls == []
"""

DRIVER = """
from workers.drivers.memory import MemoryDriver

class MyDriver(MemoryDriver):
    pass

class Forgetful(MemoryDriver):
    def look(self, uuid):
        return None

def my_smallest_domain(name, uuid):
    return (f"<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory>"
            "<vcpu>1</vcpu><os><type>hvm</type></os></domain>")
"""

LAWS = """
import pytest
from mydriver import {driver}, my_smallest_domain
from workers.testing import Bench, DriverContract

class TestMine(DriverContract):
    @pytest.fixture
    def bench(self):
        return Bench(driver={driver}("mine:///"), xml=my_smallest_domain, patience_s=0.1)
"""


def pytest_in(project: Path, **files: str) -> subprocess.CompletedProcess[str]:
    """Write a project of these modules, and run its tests as its author would."""
    for name, text in files.items():
        (project / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(project)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{project}"}
    return subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True)


def test_an_embedder_tests_with_the_fixtures(tmp_path: Path) -> None:
    """Four tests pass; the one that waits for ever fails, with the reason, and takes nothing else with it."""
    done = pytest_in(tmp_path, conftest=CONFTEST, test_mine=EMBEDDERS)
    assert "1 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert "Deadlock: every task waits" in done.stdout
    assert re.search(r"test_mine\.py:\d+ in test_nobody_ever_comes", done.stdout)


def test_a_third_partys_driver_is_held_to_the_laws_in_ten_lines(tmp_path: Path) -> None:
    """All laws run; those that its hypervisor cannot be put to are skipped."""
    laws = LAWS.format(driver="MyDriver")
    assert 10 >= len([line for line in laws.splitlines() if line])
    done = pytest_in(tmp_path, mydriver=DRIVER, test_laws=laws)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_driver_that_breaks_a_law_is_told_which(tmp_path: Path) -> None:
    """One that sees nothing fails, with what was asserted and what was found."""
    done = pytest_in(tmp_path, mydriver=DRIVER, test_laws=LAWS.format(driver="Forgetful"))
    assert 1 == done.returncode
    assert "test_a_defined_domain_is_seen_as_defined" in done.stdout
    assert "assert None is not None" in done.stdout


def test_what_needs_no_pytest_does_not_import_it() -> None:
    """A simulation, or a program that shows itself on a fleet in memory, has no use for pytest."""
    program = "import sys, workers.testing.fleet; sys.exit('pytest' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode
