"""A command line whose broker is in memory and whose coordinator answers what a test says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bus.logs import buckets
from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Headers, LogConfig, Message, Outgoing
from orchestrator.cli import session
from orchestrator.cli.session import Session
from orchestrator.cli.settings import Settings
from orchestrator.client import Client
from orchestrator.protocol import codec
from orchestrator.protocol.subject import Subjects


class Fleet:
    """What stands behind the command line. answer: gives the body of each answer; stored: what lies in logs; far: the other side."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.posted: list[Message] = []
        self.stored: list[Outgoing] = []
        self.far: MemoryBus
        self.answer: Callable[[Message], Any] = lambda _: {"ok": True, "result": {}}

    async def respond(self, message: Message) -> tuple[bytes, Headers]:
        """Answer one request as the test says."""
        self.asked.append(message)
        return codec.encode(self.answer(message)), {}

    @asynccontextmanager
    async def connect(self, settings: Settings) -> AsyncIterator[Session]:
        """Take the place of a connection to a broker."""
        subjects, broker = Subjects(), MemoryBroker()
        failure: Exception | None = None
        async with MemoryBus(broker) as bus, MemoryBus(broker) as far:
            await bus.link.up()
            await far.link.up()
            await far.provision([LogConfig(name=subjects.log_cmd, subjects=(subjects.cmds,))])
            await far.provision([LogConfig(name=subjects.log_evt, subjects=(subjects.events,)), *buckets(subjects)])
            self.far = far
            for message in self.stored:
                await far.append(message)
            async with (
                far.serve("virt-api", subjects.apis, self.respond, version="0", metadata={}),
                far.serve("virt-worker", subjects.asks("*"), self.respond, version="0", metadata={}),
                far.listen(subjects.cmds, self.posted.append),
            ):
                try:
                    yield Session(bus, Subjects(settings.prefix), Client(bus, subjects, project=settings.owner, patience_s=0.0))
                except Exception as error:  # noqa: BLE001  raised below, where no task group of this fixture wraps it
                    failure = error
        if failure is not None:
            raise failure


@pytest.fixture(autouse=True)
def no_contexts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what whoever runs the tests has in the environment and in a config file out of them."""
    for variable in [name for name in os.environ if name.startswith("VIRTBUS_") or name in ("NO_COLOR", "XDG_CONFIG_HOME")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("VIRTBUS_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Let every command line of the test talk to this fleet."""
    made = Fleet()
    monkeypatch.setattr(session, "connected", made.connect)
    return made
