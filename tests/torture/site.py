"""The installation under torture: real processes, each on a wire of its own, started again whenever they end, and the faults.

Whatever a fault does it undoes itself, also when it is cancelled: once no fault runs, everything is whole or coming back.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Unavailable
from orchestrator.cli.children import Broker, Child, Part
from orchestrator.cli.orphans import adopt
from orchestrator.protocol import permission
from orchestrator.protocol.permission import Permissions
from tests.e2e.fleet import PROJECT_ROOT, SUBJECTS
from tests.e2e.places import left_running
from tests.hypervisors import private_libvirtd
from tests.torture.holding import Holding
from tests.torture.network import Wire

JOURNAL_MIB = 64
"""Size of the file system that a node's journal lies on."""


class Site:
    """Broker, coordinators, and a worker for each of `nodes` (kind by name: `test` or `qemu`), beneath `home`."""

    def __init__(self, home: Path, nodes: Mapping[str, str], coordinators: Sequence[str]) -> None:
        self.home = home
        self.nodes = nodes
        self.uris: dict[str, str] = {}
        self.ends: Counter[str] = Counter()
        """How often a process ended, whoever ended it."""
        self._coordinators = coordinators
        self._passwords = {user: secrets.token_hex(8) for user in ("local", *coordinators, *nodes)}
        self._embedded = Embedded(home / "broker", host="0.0.0.0", users=self._users(), no_auth_user="local")  # noqa: S104  a namespace of ours
        self._parts: dict[str, Part] = {"broker": Broker(self._embedded)}
        self._wires: dict[str, Wire] = {}
        self._holdings: dict[str, Holding] = {}
        self._leaving = False
        self._stack = AsyncExitStack()

    def _users(self) -> list[User]:
        rights: dict[str, Permissions | None] = {"local": None}
        rights |= {name: permission.coordinator(SUBJECTS, name) for name in self._coordinators}
        rights |= {node: permission.worker(SUBJECTS, node) for node in self.nodes}
        return [User(name=user, password=self._passwords[user], permissions=allowed) for user, allowed in rights.items()]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run everything for as long as the context lasts; then end it all, domains too."""
        with ExitStack() as stack:
            self._make_hypervisors(stack)
            for number, name in enumerate((*self._coordinators, *self.nodes), 1):
                self._wires[name] = wire = Wire(number)
                stack.callback(wire.close)
            await self._parts["broker"].start()
            self._describe(stack)
            async with anyio.create_task_group() as tasks:
                try:
                    for part in self._parts.values():
                        await part.start()
                        tasks.start_soon(self._keep, part)
                    yield
                finally:
                    self._leaving = True
                    tasks.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        for part in reversed(self._parts.values()):
                            await part.stop(3.0)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[NatsBus]:
        """Connect as somebody on this machine."""
        async with NatsBus(self._embedded.url, name="torture") as bus:
            await bus.link.up()
            yield bus

    async def stop_worker(self, node: str) -> None:
        """End a worker for good; its domains stay."""
        self._leaving = True
        await self._parts[node].stop(5.0)

    def calls(self) -> Counter[tuple[str, str]]:
        """Return how often each (verb, UUID) was called in libvirt."""
        lines = [line.split() for file in self.home.glob("*.calls") for line in file.read_text().splitlines()]
        return Counter((verb, uuid) for verb, uuid in lines)

    def logs(self) -> dict[str, str]:
        """Return what each process wrote to stderr."""
        return {file.name: file.read_text(errors="replace") for file in sorted(self.home.glob("*.log"))}

    def _make_hypervisors(self, stack: ExitStack) -> None:
        adopt()  # nobody else here reaps what is killed: this may be the first process of its namespace
        inside = [node for node, kind in self.nodes.items() if kind == "qemu"]
        if inside:
            place = stack.enter_context(left_running(inside))
            self.uris |= {node: place.uris[node][0] for node in inside}
        for node in self.nodes.keys() - set(inside):
            daemon = stack.enter_context(private_libvirtd())
            self._holdings[node] = stack.enter_context(Holding(daemon))
            self.uris[node] = daemon.uri("test")

    def _describe(self, stack: ExitStack) -> None:
        for name in self._coordinators:
            self._parts[name] = self._child(name, "orchestrator.cli", ["--wait", "coordinator", "--name", name])
        for node in self.nodes:
            disk = self.home / node
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={JOURNAL_MIB}m", "tmpfs", str(disk)], check=True)  # noqa: S607
            stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)
            arguments = ["--wait", "--node", node, "--data-dir", str(disk), "--hypervisor", self.uris[node]]
            self._parts[node] = self._child(node, "tests.e2e.counted", arguments)

    def _child(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        wire = self._wires[name]
        port = self._embedded.url.rpartition(":")[2]
        environment = {
            "VIRTBUS_SERVER": f"nats://{name}:{self._passwords[name]}@{wire.here}:{port}",
            "COUNTED_CALLS": str(self.home / f"{name}.calls"),
            "PYTHONPATH": str(PROJECT_ROOT),
        }
        command = ["-m", "tests.torture.inside", wire.namespace, module, *arguments]
        return Child(name, command, environment, self.home / f"{name}.log")

    async def _keep(self, part: Part) -> None:
        """Start a process again whenever it ends, as an init would."""
        while True:
            await part.ended()
            if self._leaving:
                return
            self.ends[part.name] += 1
            while not self._leaving:
                try:
                    await part.start()
                    break
                except Unavailable:
                    await anyio.sleep(0.5)  # what it said is in its log

    # -- faults ----------------------------------------------------------------

    async def fault(self, kind: str, target: str, for_s: float) -> None:
        """Do something bad to `target`, and undo it after `for_s` seconds, or at once where it is over then."""
        if kind == "kill":
            self._signal(self._parts[target].pid, signal.SIGKILL)
        elif kind == "stop":
            await self._stopped(self._parts[target].pid, for_s)
        elif kind == "cut":
            await self._cut(self._wires[target], for_s)
        elif kind == "full":
            await self._full(self.home / target / "ballast", for_s)
        elif kind == "libvirtd-kill":
            await self._holdings[target].kill()
        elif kind == "libvirtd-stop":
            await self._holdings[target].freeze(for_s)
        else:
            raise ValueError(f"no fault is called {kind!r}")

    async def guest(self, kind: str, name: str, for_s: float) -> None:
        """Kill or freeze a guest's QEMU."""
        for pid in _guests(name):
            if kind == "kill-guest":
                self._signal(pid, signal.SIGKILL)
            else:
                await self._stopped(pid, for_s)

    async def meddle(self, node: str, verb: str, name: str) -> None:
        """Change a domain of a libvirtd without telling anybody."""
        await self._holdings[node].meddle(verb, name)

    async def _stopped(self, pid: int, for_s: float) -> None:
        try:
            self._signal(pid, signal.SIGSTOP)
            await anyio.sleep(for_s)
        finally:
            self._signal(pid, signal.SIGCONT)

    async def _cut(self, wire: Wire, for_s: float) -> None:
        try:
            wire.cut()
            await anyio.sleep(for_s)
        finally:
            wire.mend()

    async def _full(self, ballast: Path, for_s: float) -> None:
        try:
            await anyio.to_thread.run_sync(_fill, ballast)
            await anyio.sleep(for_s)
        finally:
            _empty(ballast)

    def _signal(self, pid: int, how: signal.Signals) -> None:
        if pid > 1:
            with suppress(ProcessLookupError):
                os.kill(pid, how)


def _fill(ballast: Path) -> None:
    """Write until the disk is full."""
    block = bytes(64 * 1024)
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with suppress(OSError):
            while True:
                os.write(descriptor, block)
    finally:
        os.close(descriptor)


def _empty(ballast: Path) -> None:
    ballast.unlink(missing_ok=True)


def _guests(name: str) -> list[int]:
    """Return the processes of a guest; all that can be seen are ours."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"qemu-system-x86_64") and any(word.startswith(f"guest={name},".encode()) for word in words):
                    found.append(int(entry.name))
    return found
