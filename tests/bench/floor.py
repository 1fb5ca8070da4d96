"""The floor: a bare script with the broker writes and journal commits of the real thing, and nothing else.

Three roles, each a process of its own as in production: `worker`, `coordinator`, and `responder` for the row of plain
request and reply. Plain nats-py, sqlite3 and json. A command costs, here as there:

| step                                                                     | broker               | journal          |
|--------------------------------------------------------------------------|----------------------|------------------|
| `run`: the client appends it to `RUN`, the broker pushes it to the worker | 1 append, 1 push     |                  |
| received                                                                 |                      | 1 commit         |
| begun                                                                    |                      | 1 commit         |
| the libvirt call; its outcome, two events and the domain's state         |                      | 1 commit         |
| lifecycle event, terminal event: fenced, one in flight                   | 2 appends            | 2 commits        |
| the same from ten events waiting: all that wait as one atomic batch      | 1 batch for all      | 1 commit for all |
| the domain's state key                                                   | 1 append             |                  |
| the result                                                               | 1 publish            |                  |
| `api`: before it a request; the coordinator appends, answers at the result | 1 request, 1 reply |                  |
| `cmd`: before it the client appends to `CMD`; the coordinator follows that log by a consumer and appends | 1 append, 1 push | |

Same too: uvloop where it is installed, the broker, the logs' settings, a journal that is not synced (`synchronous=OFF`,
pages and log of the same size), group commit, state keys of different domains written side by side, the client's process.

Not here: validation, ledger look-ups, looks before and after the call, the thread around it, libvirt's own event, recovery,
permissions, and the coordinator's mirror of the state keys (1 push a key). The commits that note what is stored are not
waited for. So the floor is as low as the promises allow.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import secrets
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import libvirt
import nats
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

PREFIX = "floor"
NODE = "n1"
PROJECT = "default"
RESPONDER = f"{PREFIX}.call"
BATCH_FROM, MAX_BATCH = 10, 500
ANSWER_S = 10.0

Statement = tuple[str, tuple[Any, ...]]

SCHEMA = """
PRAGMA page_size = 2048; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 8192;
CREATE TABLE ledger (id TEXT PRIMARY KEY, sequence INTEGER, subject TEXT, body BLOB, phase TEXT, event INTEGER, result BLOB);
CREATE INDEX unfinished ON ledger (event) WHERE phase <> 'stored';
CREATE TABLE outbox (number INTEGER PRIMARY KEY, subject TEXT, body BLOB);
CREATE TABLE domains (uuid TEXT PRIMARY KEY, observed BLOB) WITHOUT ROWID;
"""
RECEIVED = "INSERT OR IGNORE INTO ledger VALUES (?, ?, ?, ?, 'received', NULL, NULL)"
BEGUN = "UPDATE ledger SET phase = 'begun' WHERE id = ?"
TOLD = "INSERT INTO outbox VALUES (?, ?, ?)"
OBSERVED = "INSERT OR REPLACE INTO domains VALUES (?, ?)"
ENDED = "UPDATE ledger SET phase = 'ended', event = ?, result = ? WHERE id = ?"
STORED = "UPDATE ledger SET phase = 'stored' WHERE phase <> 'stored' AND event <= ?"
LEFT = "DELETE FROM outbox WHERE number <= ?"


class Tasks:
    """Tasks that nobody waits for: kept from being collected, and the end of the process if they fail."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start one."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            sys.stderr.write(f"{error!r}\n")
            sys.stderr.flush()
            os._exit(1)


class Journal:
    """SQLite with group commit on the loop."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(SCHEMA)
        self._waiting: list[tuple[tuple[Statement, ...], asyncio.Future[None]]] = []

    def commit(self, *statements: Statement) -> asyncio.Future[None]:
        """Have `statements` written in the loop's next turn; the future is done when they are."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((statements, loop.create_future()))
        return self._waiting[-1][1]

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        for statements, _ in batch:
            for sql, parameters in statements:
                execute(sql, parameters)
        execute("COMMIT")
        for _, done in batch:
            done.set_result(None)


class Told(NamedTuple):
    """An event on its way out: the state key and the result that follow it, if any."""

    number: int
    subject: str
    body: bytes
    state: tuple[str, bytes] | None
    result: tuple[str, bytes] | None


class Worker:
    """Takes pushes, makes the calls, tells what came of them."""

    def __init__(self, broker: Nats, journal: Journal, domains: dict[str, Any]) -> None:
        self._broker = broker
        self._log = broker.jetstream()
        self._journal = journal
        self._domains = domains
        self._tasks = Tasks()
        self._epoch = f"{int(time.time() * 1000):026d}"
        self._number = 0
        self._previous: dict[str, int] = {}
        self._outbox: deque[Told] = deque()
        self._filled = asyncio.Event()
        self._states: dict[str, bytes] = {}
        self._results: list[tuple[str, bytes]] = []
        self._stored = asyncio.Event()

    async def run(self) -> None:
        """Listen, publish and project for ever."""
        await self._broker.subscribe(f"{PREFIX}.v1.dlv.{NODE}.>", cb=self._push)
        await self._broker.flush()
        ready()
        await asyncio.gather(self._publish(), self._project())

    async def _push(self, message: Msg) -> None:
        self._tasks.start(self._execute(message))

    async def _execute(self, message: Msg) -> None:
        began = time.monotonic()
        uuid, verb = message.subject.split(".")[5:]
        command = json.loads(message.data)
        id = command["id"]
        sequence = int((message.headers or {})["Nats-Sequence"])
        await self._journal.commit((RECEIVED, (id, sequence, message.subject, message.data)))
        await self._journal.commit((BEGUN, (id,)))
        state, event = call(self._domains[uuid], verb)
        duration_ms = round((time.monotonic() - began) * 1000, 3)
        seen = {"uuid": uuid, "name": uuid, "state": state}
        result = {
            "id": id, "verb": verb, "ok": True, "changed": True, "node": NODE, "project": PROJECT, "domain": seen,
            "result": {}, "duration_ms": duration_ms,
        }
        answer = json.dumps(result).encode()
        observed = self._observed(uuid, state)
        told = [
            self._tell(uuid, id, f"lifecycle.{event}", {"event": event, "detail": event}, state=(uuid, observed)),
            self._tell(uuid, id, "command.succeeded", result, result=(f"{PREFIX}.v1.res.{NODE}.{PROJECT}.{id}", answer)),
        ]
        events: list[Statement] = [(TOLD, (one.number, one.subject, one.body)) for one in told]
        await self._journal.commit(*events, (OBSERVED, (uuid, observed)), (ENDED, (told[-1].number, answer, id)))
        self._outbox.extend(told)
        self._filled.set()

    def _observed(self, uuid: str, state: str) -> bytes:
        observed = {
            "uuid": uuid, "name": uuid, "project": PROJECT, "node": NODE, "hypervisor": "test:///default", "type": "test",
            "state": state, "reason": "unknown", "persistent": True, "autostart": False, "vcpus": 1, "memory_kib": 8192,
            "labels": {}, "generation": 0, "incarnation": self._epoch, "role": "owner", "epoch": self._epoch,
            "sequence": f"{self._number + 1:016d}", "updated": timestamp(),
        }
        return json.dumps(observed).encode()

    def _tell(
        self, uuid: str, id: str, event: str, data: Any, *, state: tuple[str, bytes] | None = None, result: tuple[str, bytes] | None = None
    ) -> Told:
        self._number += 1
        previous = self._previous.get(uuid, 0)
        self._previous[uuid] = self._number
        body = {
            "specversion": "1.0", "id": f"{NODE}.{self._epoch}.{self._number:016d}", "source": f"/{PREFIX}/nodes/{NODE}",
            "type": f"{PREFIX}.v1.{event}", "subject": uuid, "time": timestamp(), "datacontenttype": "application/json",
            "node": NODE, "project": PROJECT, "domainname": uuid, "epoch": self._epoch, "sequence": f"{self._number:016d}",
            "previous": f"{previous:016d}", "incarnation": self._epoch, "commandid": id, "data": data,
        }
        subject = f"{PREFIX}.v1.evt.{NODE}.{PROJECT}.{uuid}.{event}"
        return Told(self._number, subject, json.dumps(body).encode(), state, result)

    async def _publish(self) -> None:
        """Move events into the log, one publish in flight, each fenced by the one before."""
        fence = 0
        while True:
            while not self._outbox:
                self._filled.clear()
                await self._filled.wait()
            batch = list(islice(self._outbox, MAX_BATCH)) if len(self._outbox) >= BATCH_FROM else [self._outbox[0]]
            fence = await (self._one(batch[0], fence) if len(batch) == 1 else self._all(batch, fence))
            for told in batch:
                self._outbox.popleft()
                if told.state is not None:
                    self._states[told.state[0]] = told.state[1]
                if told.result is not None:
                    self._results.append(told.result)
            self._stored.set()
            self._journal.commit((STORED, (batch[-1].number,)), (LEFT, (batch[-1].number,)))

    async def _one(self, told: Told, fence: int) -> int:
        acknowledged = await self._log.publish(told.subject, told.body, headers=self._headers(told) | _fence(fence), timeout=ANSWER_S)
        return acknowledged.seq

    async def _all(self, batch: list[Told], fence: int) -> int:
        name = secrets.token_hex(16)
        headers = [self._headers(told) | {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(at)} for at, told in enumerate(batch, 1)]
        headers[0] |= _fence(fence)
        headers[-1]["Nats-Batch-Commit"] = "1"
        for told, its in zip(batch[:-1], headers, strict=False):
            await self._broker.publish(told.subject, told.body, headers=its)
        acknowledged = await self._log.publish(batch[-1].subject, batch[-1].body, headers=headers[-1], timeout=ANSWER_S)
        return acknowledged.seq

    def _headers(self, told: Told) -> dict[str, str]:
        return {"Content-Type": "application/cloudevents+json", "Nats-Msg-Id": f"{NODE}.{self._epoch}.{told.number:016d}"}

    async def _project(self) -> None:
        """Write the state keys of what is stored, then send the results."""
        while True:
            self._stored.clear()
            await self._stored.wait()
            while self._states or self._results:
                states, results = self._states, self._results
                self._states, self._results = {}, []
                key = f"$KV.{PREFIX}_domains.{NODE}.{PROJECT}"
                await asyncio.gather(*(self._log.publish(f"{key}.{uuid}", body, timeout=ANSWER_S) for uuid, body in states.items()))
                for subject, body in results:
                    await self._broker.publish(subject, body)


class Coordinator:
    """Answers `api` and routes `cmd`; every domain is known to live on the one node."""

    def __init__(self, broker: Nats) -> None:
        self._broker = broker
        self._log = broker.jetstream()
        self._tasks = Tasks()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def run(self) -> None:
        """Serve for ever."""
        await self._broker.subscribe(f"{PREFIX}.v1.res.>", cb=self._result)
        await self._broker.subscribe(f"{PREFIX}.v1.api.>", queue=f"{PREFIX}-api", cb=self._request)
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.NEW, mem_storage=True, num_replicas=1)
        await self._log.subscribe(f"{PREFIX}.v1.cmd.>", stream=f"{PREFIX.upper()}_CMD", cb=self._command, config=config, manual_ack=True)
        await self._broker.flush()
        ready()
        await asyncio.Event().wait()

    async def _request(self, message: Msg) -> None:
        self._tasks.start(self._answer(message))

    async def _answer(self, message: Msg) -> None:
        id = json.loads(message.data)["id"]
        result = self._waiting[id] = asyncio.get_running_loop().create_future()
        await self._route(message)
        await self._broker.publish(message.reply, await result)

    async def _command(self, message: Msg) -> None:
        self._tasks.start(self._route(message))

    async def _route(self, message: Msg) -> None:
        uuid, verb = message.subject.split(".")[4:]
        await self._log.publish(f"{PREFIX}.v1.run.{NODE}.{PROJECT}.{uuid}.{verb}", message.data, timeout=ANSWER_S)

    async def _result(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if waiting is not None:
            waiting.set_result(message.data)


def _fence(last: int) -> dict[str, str]:
    fenced = f"{PREFIX}.v1.evt.{NODE}.>"
    return {"Nats-Expected-Last-Subject-Sequence": str(last), "Nats-Expected-Last-Subject-Sequence-Subject": fenced}


def call(domain: Any, verb: str) -> tuple[str, str]:
    """Suspend or resume a domain; return the state that it has then, and the event's name."""
    if verb == "suspend":
        domain.suspend()
        return "paused", "suspended"
    domain.resume()
    return "running", "resumed"


def opened(uri: str) -> dict[str, Any]:
    """Return the domains of a hypervisor by UUID."""
    return {domain.UUIDString(): domain for domain in libvirt.open(uri).listAllDomains()}


def timestamp() -> str:
    """Return the time as RFC 3339."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ready() -> None:
    """Tell whoever started this process that it takes work."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def respond(broker: Nats, domains: dict[str, Any]) -> None:
    """Make a call for each request, for ever."""

    async def answer(message: Msg) -> None:
        uuid, verb = message.subject.split(".")[2:]
        call(domains[uuid], verb)
        await broker.publish(message.reply, b"")

    await broker.subscribe(f"{RESPONDER}.>", cb=answer)
    await broker.flush()
    ready()
    await asyncio.Event().wait()


async def main(options: argparse.Namespace) -> None:
    """Play one role for ever."""
    broker = await nats.connect(options.server)
    if options.role == "coordinator":
        await Coordinator(broker).run()
    elif options.role == "worker":
        await Worker(broker, Journal(options.journal), opened(options.hypervisor)).run()
    else:
        await respond(broker, opened(options.hypervisor))


def runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Return what runs the loop: uvloop where it is installed, as in production."""
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run
    import uvloop  # noqa: PLC0415  an extra

    return uvloop.run


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("worker", "coordinator", "responder"))
    parser.add_argument("--server", required=True)
    parser.add_argument("--hypervisor", default="")
    parser.add_argument("--journal", type=Path, default=Path(os.devnull))
    runner()(main(parser.parse_args()))
