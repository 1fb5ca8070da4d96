"""Somebody at a terminal, in a directory of their own: commands that end, and commands that go on beside others."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
SYSTEM = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")


class Shell:
    """Runs commands in `home`, with this project's environment and a broker's port that nobody uses yet."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.environment = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), *SYSTEM)),
            "PYTHONPATH": str(ROOT),
            "VIRTBUS_SERVER": self.server,
        }
        self._going: list[Going] = []

    @property
    def server(self) -> str:
        """Where the broker is, or will be."""
        return f"nats://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Sit down."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Press Ctrl-C on what still goes on, the last first."""
        complaints = [going.interrupt() for going in reversed(self._going)]
        if error is None:
            assert not any(complaints), "\n".join(filter(None, complaints))

    def run(self, *command: str) -> str:
        """Run a command to its end; return what it printed. It must succeed."""
        done = subprocess.run(
            command, cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def begin(self, *command: str, until: str = "") -> Going:
        """Start a command that goes on beside those that follow, and wait until it says `until`."""
        self._going.append(Going(command, self.home, self.environment))
        self._going[-1].until(until)
        return self._going[-1]


class Going:
    """A command that goes on."""

    def __init__(self, command: Sequence[str], home: Path, environment: Mapping[str, str]) -> None:
        self._command = command[-1]
        # as from a terminal: a process group that a Ctrl-C reaches as a whole
        self._process = subprocess.Popen(
            command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._said: list[str] = []
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def until(self, *words: str) -> str:
        """Wait until it has said each of `words`; return what it said so far."""
        end = time.monotonic() + PATIENCE_S
        while not all(any(word in line for line in self._said) for word in words if word):
            assert time.monotonic() < end, f"{self._command}\ndoes not say {words}, but {self._said}"
            try:
                self._said.append(self._lines.get(timeout=1.0))
            except queue.Empty:
                assert self._process.poll() is None, f"{self._command}\nended: {self._said}"
        return "".join(self._said)

    def kill(self) -> None:
        """End it as a crash would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def interrupt(self) -> str:
        """Press Ctrl-C, unless it was killed; return what is wrong with how it went, empty where nothing is."""
        early = self._process.poll()
        if early is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self._command}\ndid not end"
        finally:
            self._listening.join()
        while not self._lines.empty():
            self._said.append(self._lines.get())
        said = "".join(self._said)
        return f"{self._command}\nended with {early}: {said}" if early not in (None, 0, -signal.SIGKILL) or "Traceback" in said else ""

    def _listen(self) -> None:
        with self._process:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self._lines.put(line)


def free_port() -> int:
    """Return a port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
