"""A command line whose broker is in memory and whose coordinator answers what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Headers, LogConfig, Message, Outgoing
from orchestrator.client import Client
from orchestrator.protocol import codec
from orchestrator.protocol.subject import Subjects


class Fleet:
    """What stands behind the command line. answer: gives the body of each answer; stored: what lies in the event log."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.posted: list[Message] = []
        self.stored: list[Outgoing] = []
        self.answer: Callable[[Message], Any] = lambda _: {"ok": True, "result": {}}

    async def respond(self, message: Message) -> tuple[bytes, Headers]:
        """Answer one request as the test says."""
        self.asked.append(message)
        return codec.encode(self.answer(message)), {}

    @asynccontextmanager
    async def connect(self, _url: str, **_options: Any) -> AsyncIterator[Client]:
        """Take the place of `Client.connect`."""
        subjects, broker = Subjects(), MemoryBroker()
        failure: Exception | None = None
        async with MemoryBus(broker) as bus, MemoryBus(broker) as far:
            await bus.link.up()
            await far.link.up()
            await far.provision([LogConfig(name=subjects.log_cmd, subjects=(subjects.cmds,))])
            await far.provision([LogConfig(name=subjects.log_evt, subjects=(subjects.events,))])
            for message in self.stored:
                await far.append(message)
            async with (
                far.serve("virt-api", subjects.apis, self.respond, version="0", metadata={}),
                far.serve("virt-worker", subjects.asks("*"), self.respond, version="0", metadata={}),
                far.listen(subjects.cmds, self.posted.append),
            ):
                try:
                    yield Client(bus, subjects, patience_s=0.0)
                except Exception as error:  # noqa: BLE001  raised below, where no task group of this fixture wraps it
                    failure = error
        if failure is not None:
            raise failure


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Let every command line of the test talk to this fleet."""
    made = Fleet()
    monkeypatch.setattr(Client, "connect", made.connect)
    return made
