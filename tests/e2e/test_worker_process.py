"""The worker's process leaves in time and in order, whatever its hypervisor does, and loses nothing by it."""

from __future__ import annotations

import os
import secrets
import select
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.port import Outgoing
from orchestrator.bus.reach import bus_at
from orchestrator.cli.children import Child
from orchestrator.cli.layout import Layout
from orchestrator.client import Client
from orchestrator.protocol import codec, permission
from orchestrator.protocol.command import Body
from orchestrator.protocol.event import TERMINAL
from orchestrator.protocol.subject import Subjects
from orchestrator.service import make

pytestmark = pytest.mark.anyio

SUBJECTS = Subjects()
UUID = "6f1c1b5e-0000-4000-8000-000000000001"
XML = "<domain type='test'><name>web1</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
COMMAND = codec.encode(Body(id="one", args={"xml": XML}))
PROJECT_ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def provisioned(home: Path, password: str) -> AsyncIterator[Embedded]:
    """Run a broker with all that a worker needs, and the worker's own user."""
    worker = User(name="n1", password=password, permissions=permission.worker(SUBJECTS, "n1"))
    async with Embedded(home / "broker", users=[User(name="local", password="local"), worker], no_auth_user="local") as broker:  # noqa: S106
        async with bus_at(broker.url, name="test") as bus:
            await bus.link.up()
            await make(bus, SUBJECTS)
        yield broker


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_worker_leaves_within_two_seconds_though_a_libvirt_call_hangs(how: signal.Signals, tmp_path: Path) -> None:
    """The command stays in its journal: the next start ends it, once."""
    layout, password = Layout(tmp_path), secrets.token_hex(8)
    hanging = tmp_path / "hanging"
    os.mkfifo(hanging)
    options = ["--wait", "--node", "n1", "--data-dir", str(layout.node("n1")), "--hypervisor", layout.hypervisor("test:///default", "n1")]
    async with provisioned(tmp_path, password) as broker, Client.connect(broker.url) as client, bus_at(broker.url, name="test") as bus:
        environment = {
            "VIRTBUS_SERVER": broker.url.replace("://", f"://n1:{password}@"),
            "HUNG_CALLS": str(hanging),
            "PYTHONPATH": str(PROJECT_ROOT),
        }
        hung = Child("worker n1", ["-m", "tests.e2e.hung", *options], environment, tmp_path / "hung.log")
        await hung.start()
        try:
            await bus.link.up()
            await bus.append(Outgoing(SUBJECTS.run("n1", "default", UUID, "define-xml"), COMMAND))
            await anyio.to_thread.run_sync(hanging.read_bytes)
            assert await anyio.to_thread.run_sync(ended_by, hung.pid, how, 2.0)
        finally:
            await hung.stop(0.0)
        assert "Traceback" not in (tmp_path / "hung.log").read_text()
        whole = Child("worker n1", ["-m", "workers", *options], environment, tmp_path / "whole.log")
        await whole.start()
        try:
            assert await end_of(client, "one") == "command.failed"
        finally:
            await whole.stop(2.0)


def ended_by(pid: int, how: signal.Signals, within_s: float) -> bool:
    """Send a signal; tell whether the process has ended in time."""
    process = os.pidfd_open(pid)
    try:
        os.kill(pid, how)
        return bool(select.select([process], [], [], within_s)[0])
    finally:
        os.close(process)


async def end_of(client: Client, id: str) -> str:
    """Return the name of a command's terminal event, as soon as it is in the log."""
    with anyio.fail_after(30):
        async for event in client.events(since=0.0, node="n1", kinds=("command",)):
            if event.name in TERMINAL and event.commandid == id:
                return event.name
    raise AssertionError  # a feed has no end
