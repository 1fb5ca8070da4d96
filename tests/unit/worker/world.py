"""One node in memory: broker, journal, hypervisor and worker, each of which can die and come back."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from orchestrator.bus.logs import buckets, logs
from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Message, Outgoing, Start
from orchestrator.protocol.subject import Subjects
from workers.drivers.memory import MemoryDriver
from workers.journal.memory import MemoryDisk, MemoryJournal
from workers.worker import Worker

SUBJECTS = Subjects()
NODE = "n1"
WEB1 = "6f1c0000-0000-4000-8000-000000000001"
WEB2 = "6f1c0000-0000-4000-8000-000000000002"
XML = "<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os></domain>"


class World:
    """What surrounds a worker, and outlives it."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.driver = MemoryDriver()
        self.disk = MemoryDisk()
        self.client = MemoryBus(self.broker, name="client")
        self.bus = MemoryBus(self.broker, name="worker")

    async def send(self, verb: str, uuid: str = WEB1, *, project: str = "default", body: Any = None, **headers: str) -> int:
        """Publish an order; return its sequence. `body` is JSON unless bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.append(Outgoing(SUBJECTS.run(NODE, project, uuid, verb), raw, named))

    async def create(self, uuid: str = WEB1, name: str = "web1") -> dict[str, Any]:
        """Have a running domain."""
        sequence = await self.send("create-xml", uuid, body={"args": {"xml": XML.format(name=name)}})
        return await self.ended(f"m-run-{sequence}")

    async def do(self, verb: str, uuid: str = WEB1, **body: Any) -> dict[str, Any]:
        """Send an order, wait for its end, return the result."""
        sequence = await self.send(verb, uuid, body=body)
        return await self.ended(body.get("id") or f"m-run-{sequence}")

    async def events(self) -> list[dict[str, Any]]:
        """Return all events in the log."""
        reader = await self.client.reader(SUBJECTS.log_evt, "test", SUBJECTS.events, Start())
        return [json.loads(message.body) for message in await reader.take(100_000)]

    async def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait until the log's events are as asked; return them."""
        reader = await self.client.reader(SUBJECTS.log_evt, "until", SUBJECTS.events, Start())
        found: list[dict[str, Any]] = []
        with anyio.fail_after(10):
            while not holds(found):
                found += [json.loads(message.body) for message in await reader.take(500, wait_s=1.0)]
        return found

    async def ended(self, identity: str) -> dict[str, Any]:
        """Wait for a command's terminal event; return its data."""
        events = await self.until(lambda events: bool(ends(events, identity)))
        data: dict[str, Any] = ends(events, identity)[0]["data"]
        return data

    async def state(self, uuid: str = WEB1, project: str = "default") -> dict[str, Any] | None:
        """Return the observed state on the bus."""
        message = await self.client.last("KV_virt_domains", f"$KV.virt_domains.{NODE}.{project}.{uuid}")
        return json.loads(message.body) if message is not None and message.body else None

    @asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[Worker]:
        """Run a worker; leaving is a crash: nothing that waits is finished, and what was not committed is lost."""
        hypervisors = options.pop("hypervisors", [self.driver])
        worker = Worker(self.bus, node=NODE, hypervisors=hypervisors, journal=MemoryJournal(self.disk), **options)
        async with worker, anyio.create_task_group() as tasks:
            with anyio.fail_after(10):
                await tasks.start(worker.run)
            yield worker
            tasks.cancel_scope.cancel()
        self.disk.crash()

    @asynccontextmanager
    async def results(self) -> AsyncIterator[Callable[[str], Any]]:
        """Listen to results; the value waits for the next result of an id."""
        async with self.client.subscribe(SUBJECTS.results) as subscription:
            iterator = aiter(subscription)

            async def next_of(identity: str) -> Message:
                with anyio.fail_after(10):
                    while True:
                        message = await anext(iterator)
                        if message.subject.endswith(f".{identity}"):
                            return message

            yield next_of


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Make a world with its logs and buckets."""
    made = World()
    async with made.client, made.bus:
        await made.client.link.up()
        await made.client.provision([*logs(SUBJECTS, created=time.time()), *buckets(SUBJECTS)])
        yield made


def ends(events: list[dict[str, Any]], identity: str) -> list[dict[str, Any]]:
    """Return the terminal events of a command."""
    terminal = ("command.succeeded", "command.failed", "command.expired", "command.cancelled")
    return [event for event in events if event["data"].get("id") == identity and event["type"].endswith(terminal)]


def kinds(events: list[dict[str, Any]], uuid: str = WEB1) -> list[str]:
    """Return the names of a domain's events, in order, without those that say only that somebody has waited for a while."""
    names = [event["type"].removeprefix("virt.v1.") for event in events if event["subject"] == uuid]
    return [name for name in names if name not in ("command.accepted", "command.started")]
