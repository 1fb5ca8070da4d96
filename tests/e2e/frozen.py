"""Machines on one node, of which some are frozen: QEMU stopped by SIGSTOP, so that whatever asks it waits."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio

from orchestrator.client import Client
from tests.e2e.fleet import SUBJECTS, Fleet
from tests.e2e.places import QEMU, embedded

NODE = "n1"
_FEW = "<devices><controller type='usb' model='none'/><memballoon model='none'/></devices>"
SMALL = QEMU.replace(">32<", ">16<").replace("<devices/>", _FEW)


class Machines:
    """Running machines, by name, on a worker with its hypervisor inside; `root` is that one's."""

    def __init__(self, fleet: Fleet, client: Client, root: Path, names: Sequence[str]) -> None:
        self.fleet = fleet
        self.client = client
        self.names = names
        self._root = root

    def pid(self, name: str) -> int:
        """Return the process of a machine, as libvirt notes it."""
        return int((self._root / "run" / "qemu" / f"{name}.pid").read_text())

    def freeze(self, name: str) -> None:
        """Stop a machine's process where it stands; return when it has stopped."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        while _state(pid) != "T":
            os.sched_yield()

    def thaw(self, name: str) -> None:
        """Let a frozen machine go on."""
        os.kill(self.pid(name), signal.SIGCONT)

    def kill(self, name: str) -> None:
        """Kill a machine's process, frozen or not."""
        os.kill(self.pid(name), signal.SIGKILL)


@asynccontextmanager
async def machines(home: Path, count: int) -> AsyncIterator[Machines]:
    """Have `count` machines running, under a broker, a coordinator and a worker of their own; none is frozen in the end."""
    with embedded([NODE]) as place:
        (uri,) = place.uris[NODE]
        fleet = Fleet(home, place.uris)
        await fleet.start()
        try:
            async with fleet.client() as bus:
                root = Path(parse_qs(urlsplit(uri).query)["root"][0])
                made = Machines(fleet, Client(bus, SUBJECTS), root, [f"vm{at}" for at in range(count)])
                async with anyio.create_task_group() as tasks:
                    for name in made.names:
                        tasks.start_soon(made.client.create_xml, name, SMALL.format(name=name))
                try:
                    yield made
                finally:
                    _thaw_all(made)
        finally:
            await fleet.stop()


def _thaw_all(made: Machines) -> None:
    for name in made.names:
        try:
            made.thaw(name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it is gone, which is as good


def _state(pid: int) -> str:
    """Return the state of a process, one letter as ps has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
