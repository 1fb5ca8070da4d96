"""The processes that `virtbus up` runs: started, watched, started again when they die, and ended in order.

Each is a session of its own, so that a Ctrl-C in the terminal reaches `up` alone, and each is tied
to `up`: when that is killed, the kernel kills them too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Protocol

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from orchestrator.bus.embedded import Embedded, tied
from orchestrator.bus.port import Unavailable

READY_S = 120.0
"""Seconds that a child has until it is ready; QEMU's capabilities may be probed meanwhile."""


class Part(Protocol):
    """One process of the system."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""

    async def start(self) -> str:
        """Start it, return once it is ready; what it said then. Raises `Unavailable` with the reason, and leaves nothing behind."""

    async def ended(self) -> None:
        """Wait until the process that `start` started is gone."""

    async def stop(self, within_s: float) -> None:
        """Let it end in order, by force after `within_s` seconds. Does nothing when it does not run."""


class Broker:
    """The embedded broker as a part."""

    name = "broker"

    def __init__(self, embedded: Embedded) -> None:
        self._embedded = embedded

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""
        return self._embedded.pid

    async def start(self) -> str:
        """Start it, on the port that it had before, and return its URL."""
        await self._embedded.kill()
        await self._embedded.start()
        return self._embedded.url

    async def ended(self) -> None:
        """Wait until it is gone."""
        await self._embedded.ended()

    async def stop(self, within_s: float) -> None:
        """Let it end in order, or by force."""
        await self._embedded.stop(within_s)


class Child:
    """A Python program of ours as a part: it prints one line, with `ready: ` and what there is to say, once it is."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """`arguments` follow the interpreter; `environment` comes on top of ours; stderr is appended to `log`."""
        self.name = name
        self._arguments = arguments
        self._environment = environment
        self._log = log
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> str:
        """Start it, return what it printed when it was ready."""
        await self.stop(0.0)
        command = tied([sys.executable, "-P", *self._arguments], signal.SIGKILL)
        with self._log.open("ab") as log:
            self._process = await anyio.open_process(
                command, stdin=DEVNULL, stdout=PIPE, stderr=log, env={**os.environ, **self._environment}, start_new_session=True
            )
        said: str | None = None
        try:
            with anyio.move_on_after(READY_S):
                said = await self._ready(self._process)
        finally:
            if said is None:
                await self.stop(0.0)
        if said is None:
            raise Unavailable(f"{self.name} was not ready within {READY_S:g} s; its log is {self._log}")
        return said

    async def ended(self) -> None:
        """Wait until it is gone."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self, within_s: float) -> None:
        """Let it end in order, or by force."""
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            _signal(process, signal.SIGTERM)
            with anyio.move_on_after(within_s):
                await process.wait()
            _signal(process, signal.SIGKILL)
            await process.wait()
            await process.aclose()

    async def _ready(self, process: Process) -> str:
        said = ""
        assert process.stdout is not None  # noqa: S101  asked for above
        async for chunk in TextReceiveStream(process.stdout, errors="replace"):
            said += chunk
            line, whole, _ = said.partition("\n")
            if whole:
                return line.partition("ready: ")[2]
        raise Unavailable(f"{self.name} did not start: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing; its log is {self._log}"


def _signal(process: Process, how: signal.Signals) -> None:
    """Send a signal, if the process still runs.

    Not by `process.send_signal`: that reaps a process that has just ended, and asyncio, which waits for it too, complains.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, how)
