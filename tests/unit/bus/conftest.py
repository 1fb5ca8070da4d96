"""A real broker for each test that needs one."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.bus.embedded import Embedded
from orchestrator.bus.nats import NatsBus


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Embedded]:
    """Give a broker of the test's own, so that it can be stopped and killed."""
    async with Embedded(tmp_path / "nats") as embedded:
        yield embedded


@pytest.fixture
async def bus(broker: Embedded) -> AsyncIterator[NatsBus]:
    """Give a connected bus."""
    async with NatsBus(broker.url, name="test") as bus:
        await bus.link.up()
        yield bus


@asynccontextmanager
async def frozen(broker: Embedded) -> AsyncIterator[None]:
    """Let the broker do nothing for as long as the context lasts, while its connections stand."""
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        while state(broker.pid) != "T":
            await anyio.sleep(0.001)
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def state(pid: int) -> str:
    """Return the kernel's letter for what a process does: `T` stopped, `Z` ended; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


@pytest.fixture
def forge(broker: Embedded) -> Callable[[bytes], Awaitable[None]]:
    """Give a way to send the broker any frames, as a client in any language may."""

    async def send(frames: bytes) -> None:
        host, port = broker.url.removeprefix("nats://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b'CONNECT {"verbose":false,"headers":true}\r\n' + frames + b"PING\r\n")
            seen = b""
            while b"PONG" not in seen:
                seen += await stream.receive()

    return send
