"""One `virtbus up`: broker, coordinator and two workers as processes, in a folder of their own, and nothing of them left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from orchestrator.bus.embedded import tied

NODES = ("n1", "n2")
_MARK = "VIRTBUS_DEMO"
_STOP_S = 10.0
_PAUSE_S = 0.05


class FleetError(Exception):
    """The fleet does not run; the message says why."""


class Fleet:
    """The processes of one installation. Enter it to start them; on leaving they end, and so does every QEMU that they started."""

    def __init__(self, hypervisor: str) -> None:
        # short, since sockets live in it, and open to all, since QEMU runs as a user of its own
        self.folder = Path(tempfile.mkdtemp(prefix="virtbus-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.log = self.folder / "up.log"
        self._hypervisor = hypervisor
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        """Where clients find the broker."""
        return f"nats://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        """Start the processes; they need some seconds until they serve."""
        arguments = ["up", "--nodes", str(len(NODES)), "--hypervisor", self._hypervisor]
        arguments += ["--port", str(self._port), "--data-dir", str(self.folder / "data")]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                tied([sys.executable, "-m", "orchestrator.cli", *arguments], signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, _MARK: str(self.folder)},
                start_new_session=True,  # so that Ctrl-C reaches only us, and we end it in order
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End all that was started, by force what does not end by itself, and remove the folder."""
        try:
            self._stop()
        finally:
            self._kill_what_remains()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def watch(self) -> None:
        """Look after `virtbus up`; raise `FleetError` with its last words when it ends."""
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise FleetError(f"virtbus up ended with code {self._process.returncode}:\n{self.last_words()}")
            await anyio.sleep(_PAUSE_S)

    def last_words(self) -> str:
        """Return the end of what the processes printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def pids(self) -> list[int]:
        """Return the processes that live on: those that carry our mark, and the QEMUs, to which libvirt hands nothing on."""
        mark = f"{_MARK}={self.folder}"
        return [pid for pid, variables in _proc("environ") if mark in variables] + self.qemu_pids()

    def remains(self) -> list[str]:
        """Return what should not be there after leaving."""
        left = [f"process {pid}" for pid in self.pids()]
        return [*left, str(self.folder)] if self.folder.exists() else left

    def qemu_pids(self) -> list[int]:
        """Return the QEMU processes that this fleet's workers started."""
        return [pid for pid, words in _proc("cmdline") if "-kernel" in words and any(str(self.folder) in word for word in words)]

    async def worker_pid(self, node: str, limit_s: float, *, other_than: int = 0) -> int:
        """Return the process of a node's worker, waiting until one is noted. Raises `FleetError` if none comes in time."""
        noted = self.folder / "data" / node / "worker.pid"
        with anyio.move_on_after(limit_s):
            while True:
                with suppress(OSError, ValueError):  # between two workers there is none, or half a line
                    pid = int(noted.read_text())
                    if pid != other_than:
                        return pid
                await anyio.sleep(_PAUSE_S)
        raise FleetError(f"no worker of {node} came within {limit_s:g} s:\n{self.last_words()}")

    def _stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _kill_what_remains(self) -> None:
        end = time.monotonic() + _STOP_S
        while (left := self.pids()) and time.monotonic() < end:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)


def _proc(name: str) -> list[tuple[int, list[str]]]:
    """Return one of the lists that the kernel keeps of each process, `cmdline` or `environ`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked, or is not ours to look at
                found.append((int(entry.name), (entry / name).read_text(errors="replace").split("\0")))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
