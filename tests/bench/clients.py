"""Who sends the commands that are measured: plain nats-py to the floor, our own client and bus to the real thing.

Both say `run`, `api` and `cmd` and return when the result is there; both wait for results of `run` and `cmd` on one
subscription to `res`. A command that had no effect raises `NoEffect`, so that nothing is measured but commands that did something.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import nats
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Bus, Message, Outgoing
from orchestrator.client import Client
from orchestrator.protocol import codec
from orchestrator.protocol.command import Body, Result
from orchestrator.protocol.subject import Subjects
from tests.bench import floor

NODE = "n1"
PROJECT = "default"


class NoEffect(Exception):
    """A command changed nothing, so what was measured is not what was meant."""


class Ways(Protocol):
    """The three ways to have a verb run on a domain."""

    async def run(self, uuid: str, verb: str) -> None:
        """Append to the log of the node, wait for the result."""

    async def api(self, uuid: str, verb: str) -> None:
        """Ask a coordinator, whose answer is the result."""

    async def cmd(self, uuid: str, verb: str) -> None:
        """Append to the log of commands, wait for the result."""


class FloorClient:
    """Plain nats-py."""

    def __init__(self, broker: Nats) -> None:
        self._broker = broker
        self._log = broker.jetstream()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    @classmethod
    @asynccontextmanager
    async def connected(cls, server: str) -> AsyncIterator[FloorClient]:
        """Connect for as long as the context lasts."""
        broker = await nats.connect(server)
        try:
            client = cls(broker)
            await broker.subscribe(f"{floor.PREFIX}.v1.res.{floor.NODE}.{floor.PROJECT}.*", cb=client._result)
            await broker.flush()
            yield client
        finally:
            await broker.close()

    async def run(self, uuid: str, verb: str) -> None:
        """Append to the log of the node."""
        await self._append(f"{floor.PREFIX}.v1.run.{floor.NODE}.{floor.PROJECT}.{uuid}.{verb}")

    async def api(self, uuid: str, verb: str) -> None:
        """Ask the coordinator."""
        body = json.dumps({"id": secrets.token_hex(12)}).encode()
        subject = f"{floor.PREFIX}.v1.api.{floor.PROJECT}.{uuid}.{verb}"
        _check(json.loads((await self._broker.request(subject, body, timeout=floor.ANSWER_S)).data)["changed"], uuid, verb)

    async def cmd(self, uuid: str, verb: str) -> None:
        """Append to the log of commands."""
        await self._append(f"{floor.PREFIX}.v1.cmd.{floor.PROJECT}.{uuid}.{verb}")

    async def call(self, uuid: str, verb: str) -> None:
        """Ask a process that makes the call and answers, with nothing kept anywhere."""
        await self._broker.request(f"{floor.RESPONDER}.{uuid}.{verb}", b"", timeout=floor.ANSWER_S)

    async def _append(self, subject: str) -> None:
        id = secrets.token_hex(12)
        result = self._waiting[id] = asyncio.get_running_loop().create_future()
        await self._log.publish(subject, json.dumps({"id": id}).encode(), timeout=floor.ANSWER_S)
        _check(json.loads(await result)["changed"], *subject.split(".")[-2:])

    async def _result(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if waiting is not None:
            waiting.set_result(message.data)


class OurClient:
    """`Client` for `api` and `cmd`; the bus for `run`, which needs no more."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subjects = Subjects()
        self._client = Client(bus, project=PROJECT)
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    @classmethod
    @asynccontextmanager
    async def connected(cls, server: str) -> AsyncIterator[OurClient]:
        """Connect for as long as the context lasts."""
        async with NatsBus(server, name="virtbus-bench") as bus:
            await bus.link.up()
            client = cls(bus)
            async with bus.listen(client._subjects.res(NODE, PROJECT, "*"), client._result):
                yield client

    async def run(self, uuid: str, verb: str) -> None:
        """Append to the log of the node."""
        id = secrets.token_hex(12)
        result = self._expect(id)
        await self._bus.append(Outgoing(self._subjects.run(NODE, PROJECT, uuid, verb), codec.encode(Body(id=id))))
        self._end(await result, uuid, verb)

    async def api(self, uuid: str, verb: str) -> None:
        """Ask a coordinator."""
        result = await self._client.call(uuid, verb)
        _check(result.changed, uuid, verb)

    async def cmd(self, uuid: str, verb: str) -> None:
        """Append to the log of commands."""
        id = secrets.token_hex(12)
        result = self._expect(id)
        await self._client.post(uuid, verb, id=id)
        self._end(await result, uuid, verb)

    def _expect(self, id: str) -> asyncio.Future[bytes]:
        future = self._waiting[id] = asyncio.get_running_loop().create_future()
        return future

    def _end(self, body: bytes, uuid: str, verb: str) -> None:
        _check(codec.decode(body, Result).changed, uuid, verb)

    def _result(self, message: Message) -> None:
        waiting = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if waiting is not None:
            waiting.set_result(message.body)


def _check(changed: object, uuid: str, verb: str) -> None:
    if changed is not True:
        raise NoEffect(f"{verb} of {uuid} had no effect")
