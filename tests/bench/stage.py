"""All processes that are measured, started once: `virtbus up` and, on its broker, the floor's own.

`up` runs broker, coordinator and one worker as in production, the latter two with the least permissions. The floor has the
same without permissions, and a process that answers plain requests. Each worker has a private libvirt test driver with the
same domains.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from orchestrator.bus.embedded import tied
from orchestrator.bus.logs import bucket, logs
from orchestrator.bus.nats import NatsBus, connect_or_explain
from orchestrator.protocol.subject import Subjects
from tests.bench import floor
from tests.bench.clients import NODE

DOMAINS = 64
"""Domains of each hypervisor, and commands in flight where the throughput is measured: one a domain."""

START_S = 30.0
STOP_S = 3.0
LAST_WORDS = 2_000

_DOMAIN = (
    "<domain type='test'><name>d{0:02d}</name><uuid>{1}</uuid><memory>8192</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>\n"
)


class NotStarted(Exception):
    """A process did not start; the message says which, and what it said."""


class Stage:
    """What runs: the broker's URL, a hypervisor for calls of one's own, and the processes by name."""

    def __init__(self, server: str, hypervisor: str, pids: Mapping[str, int]) -> None:
        self.server = server
        self.hypervisor = hypervisor
        self.pids = pids


def uuids() -> list[str]:
    """Return the UUIDs of the domains."""
    return [f"00000000-0000-4000-8000-{number:012x}" for number in range(DOMAINS)]


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """Start all processes, end them with the context and remove what they wrote. Raises `NotStarted`."""
    with _folder() as folder:
        description = folder / "node.xml"
        domains = (_DOMAIN.format(number, uuid) for number, uuid in enumerate(uuids()))
        description.write_text(f"<node>\n{''.join(domains)}</node>\n")
        hypervisor = f"test://{description}"
        port = _free_port()
        server = f"nats://127.0.0.1:{port}"
        up = ["up", "--nodes", "1", "--hypervisor", hypervisor, "--port", str(port), "--data-dir", str(folder / "data")]
        async with AsyncExitStack() as processes:
            await processes.enter_async_context(_process(folder, "up", ["-m", "orchestrator.cli", *up], "ready; "))
            await _provision(server)
            pids = {name: _noted(folder / "data" / file) for name, file in _PID_FILES.items()}
            for role in ("worker", "coordinator", "responder"):
                arguments = [floor.__file__, role, "--server", server, "--hypervisor", hypervisor, "--journal", str(folder / "floor.db")]
                process = await processes.enter_async_context(_process(folder, f"floor-{role}", arguments, "ready\n"))
                pids[f"floor {role}"] = process.pid
            yield Stage(server, hypervisor, pids | {"client": os.getpid()})


_PID_FILES = {"broker": "broker.pid", "coordinator": "coordinator.pid", "worker": f"{NODE}/worker.pid"}


def _noted(file: Path) -> int:
    return int(file.read_text())


async def _provision(server: str) -> None:
    """Make the floor's logs and its bucket just as ours are made."""
    subjects = Subjects(floor.PREFIX)
    async with NatsBus(server, name="virtbus-bench-provision") as bus:
        await connect_or_explain(bus)
        await bus.provision([*logs(subjects, created=time.time()), bucket(subjects.bucket("domains"))])


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="virtbus-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _process(folder: Path, name: str, arguments: Sequence[str], word: str) -> AsyncIterator[Process]:
    """Run a Python program, which ends with us however that comes about; it has started once it printed `word`."""
    log = folder / f"{name}.log"
    with log.open("wb") as errors:
        command = tied([sys.executable, *arguments], signal.SIGTERM)
        process = await anyio.open_process(command, stdin=DEVNULL, stdout=PIPE, stderr=errors, start_new_session=True)
    try:
        said: list[str] = []
        with anyio.move_on_after(START_S):
            await _hear(process, word, said)
        if word not in "".join(said):
            words = f"{''.join(said)}\n{log.read_text(errors='replace')}".strip()
            raise NotStarted(f"{name} did not start: {words[-LAST_WORDS:] or 'it said nothing'}")
        yield process
    finally:
        await _end(process)


async def _hear(process: Process, word: str, said: list[str]) -> None:
    """Take what a process prints into `said`, until that has `word` in it or the process is gone."""
    assert process.stdout is not None
    async for chunk in TextReceiveStream(process.stdout, errors="replace"):
        said.append(chunk)
        if word in "".join(said):
            return


async def _end(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(STOP_S):
            await process.wait()
        with suppress(ProcessLookupError):
            process.kill()
        await process.aclose()
