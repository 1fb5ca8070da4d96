"""A whole installation of real processes under a test's control: broker, coordinator, workers, each to be killed and started.

Each worker has the least-privilege credentials of production, and writes down its calls into libvirt (`counted`).
"""

from __future__ import annotations

import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Message, Outgoing, Start, Unavailable, Uncertain
from orchestrator.cli.children import Child
from orchestrator.protocol import permission
from orchestrator.protocol.subject import Subjects

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = Subjects()


class Fleet:
    """Broker, one coordinator, and a worker for each of `hypervisors` (node name to URIs)."""

    def __init__(self, home: Path, hypervisors: Mapping[str, Sequence[str]]) -> None:
        self.home = home
        self._passwords = {user: secrets.token_hex(8) for user in ("local", "coordinator", *hypervisors)}
        allowed = {
            "local": None,
            "coordinator": permission.coordinator(SUBJECTS, "coordinator"),
            **{node: permission.worker(SUBJECTS, node) for node in hypervisors},
        }
        users = [User(name=user, password=self._passwords[user], permissions=rights) for user, rights in allowed.items()]
        self.broker = Embedded(home / "broker", users=users, no_auth_user="local")
        self._hypervisors = hypervisors
        self.coordinator: Child
        self.workers: dict[str, Child] = {}

    async def start(self) -> None:
        """Start everything, in order."""
        await self.broker.start()
        self.coordinator = self._child("coordinator", ["-m", "orchestrator.cli", "--wait", "coordinator", "--name", "coordinator"])
        await self.coordinator.start()
        for node, uris in self._hypervisors.items():
            home = self.home / node
            home.mkdir(exist_ok=True)
            arguments = ["-m", "tests.e2e.counted", "--wait", "--node", node, "--data-dir", str(home)]
            arguments += [word for uri in uris for word in ("--hypervisor", uri)]
            self.workers[node] = self._child(node, arguments)
            await self.workers[node].start()

    async def stop(self) -> None:
        """End everything, in the opposite order."""
        with anyio.CancelScope(shield=True):
            await self.stop_workers()
            await self.coordinator.stop(1.0)
            await self.broker.stop()

    async def stop_workers(self) -> None:
        """End the workers; domains stay."""
        for worker in self.workers.values():
            await worker.stop(3.0)

    async def kill_and_restart(self, part: str) -> None:
        """Kill -9 one of `broker`, `coordinator` or a node's worker, and start it again."""
        if part == "broker":
            await self.broker.kill()
            await self.broker.start()
            return
        child = self.coordinator if part == "coordinator" else self.workers[part]
        os.kill(child.pid, signal.SIGKILL)
        await child.ended()
        await child.start()

    def calls(self) -> Counter[tuple[str, str]]:
        """Return how often each (verb, UUID) was called in libvirt."""
        counted: Counter[tuple[str, str]] = Counter()
        for file in self.home.glob("*.calls"):
            counted.update((verb, uuid) for verb, uuid in (line.split() for line in file.read_text().splitlines()))
        return counted

    def logs(self) -> str:
        """Return what the processes wrote to stderr."""
        return "\n".join(file.read_text(errors="replace") for file in sorted(self.home.glob("*.log")))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[NatsBus]:
        """Connect as somebody on this machine."""
        async with NatsBus(self.broker.url, name="test") as bus:
            await bus.link.up()
            yield bus

    def _child(self, name: str, arguments: list[str]) -> Child:
        environment = {
            "VIRTBUS_SERVER": self.broker.url.replace("://", f"://{name}:{self._passwords[name]}@"),
            "COUNTED_CALLS": str(self.home / f"{name}.calls"),
            "PYTHONPATH": str(PROJECT_ROOT),
        }
        return Child(name, arguments, environment, self.home / f"{name}.log")


async def publish(bus: NatsBus, subject: str, body: bytes) -> None:
    """Append until it is certainly stored; the id in the body makes repeats harmless."""
    while True:
        try:
            await bus.append(Outgoing(subject, body))
        except (Uncertain, Unavailable):
            await bus.link.up()
        else:
            return


async def everything(bus: NatsBus, log: str, subjects: str) -> list[Message]:
    """Return all messages of a log under `subjects`, in order; begun anew when the broker goes away meanwhile."""
    while True:
        await bus.link.up()
        found: list[Message] = []
        try:
            reader = await bus.reader(log, f"audit-{secrets.token_hex(4)}", subjects, Start())
            while len(found) < reader.pending:
                found += await reader.take(500)
        except (Uncertain, Unavailable):
            continue
        return found
