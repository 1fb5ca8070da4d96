"""Laws of libvirt's event loop: one a process, ours or the program's, and it stays when drivers come and go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys, threading
import libvirt
from workers.drivers.libvirt import LibvirtDriver, events_run_elsewhere
from orchestrator.protocol.verb import XmlArgs
from workers.drivers.port import Tag

class Ear:
    def __init__(self):
        self.heard = threading.Event()
        self.thread = ""

    def happened(self, happening):
        self.thread = threading.current_thread().name
        self.heard.set()

    def lost(self, reason):
        pass

def turn():
    while True:
        libvirt.virEventRunDefaultImpl()

if sys.argv[1] == "theirs":
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=turn, name="theirs", daemon=True).start()
    events_run_elsewhere()

uuid = "6f1c1b5e-0000-4000-8000-000000000009"
xml = f"<domain type='test'><name>loop</name><uuid>{uuid}</uuid><memory>8192</memory><os><type>hvm</type></os></domain>"
for turn in range(2):
    driver, ear = LibvirtDriver("test:///default"), Ear()
    driver.open(ear)
    driver.run("define-xml", uuid, XmlArgs(xml=xml), Tag(project="default"))
    assert ear.heard.wait(10)
    driver.close()
    print(ear.thread, sorted(thread.name for thread in threading.enumerate()))
"""


@pytest.mark.parametrize(("whose", "thread"), [("ours", "libvirt-events"), ("theirs", "theirs")])
def test_events_come_on_the_one_loop_whoever_runs_it(whose: str, thread: str) -> None:
    """The program's own, if it says so, and then none of ours; begun once, however many drivers come and go."""
    command = [sys.executable, "-P", "-c", PROGRAM, whose]
    said = subprocess.run(command, env={"PYTHONPATH": str(PROJECT_ROOT)}, check=True, capture_output=True, text=True, timeout=60)
    assert said.stdout.splitlines() == [f"{thread} {sorted(['MainThread', thread])}"] * 2
