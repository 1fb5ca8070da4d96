"""Two workers and a client inside a program of somebody else: cancelled in the middle, nothing of them is left, and nothing is lost."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import nats
import pytest

from orchestrator.bus.embedded import Embedded
from orchestrator.cli.children import Child
from orchestrator.client import Client
from orchestrator.protocol.command import Result
from orchestrator.protocol.event import TERMINAL, Event
from orchestrator.protocol.verb import VERBS, Args
from tests.e2e.fleet import PROJECT_ROOT
from tests.e2e.places import TEST
from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.port import Happening, Tag
from workers.worker import Worker

UUID = "6f1c1b5e-0000-4000-8000-000000000002"
LIVING = f"<node>{TEST.format(name='web2').replace('</name>', f'</name><uuid>{UUID}</uuid>')}</node>"


class Held(LibvirtDriver):
    """A libvirt driver whose calls of `suspend` hang until let go, before or after their effect."""

    def __init__(self, uri: str, *, after: bool) -> None:
        super().__init__(uri)
        self.after = after
        self.calls: list[str] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Hang, and carry it out; or the other way round."""
        self.calls.append(verb)
        if verb == "suspend" and not self.after:
            self._hang()
        super().run(verb, uuid, args, tag)
        if verb == "suspend" and self.after:
            self._hang()

    def _hang(self) -> None:
        self.entered.set()
        self.gate.wait(10)


class Nobody:
    """Listens to a connection that is only held open."""

    def happened(self, happening: Happening) -> None:
        """Take no notice."""

    def lost(self, reason: str) -> None:
        """Take no notice."""


def counts() -> tuple[list[str], int, int]:
    """Return this process's threads, tasks and descriptors."""
    return sorted(thread.name for thread in threading.enumerate()), len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir()))


async def settled(expected: tuple[list[str], int, int]) -> tuple[list[str], int, int]:
    """Return the counts, as soon as they are as expected or a second is over: asyncio closes a socket in the loop's next turns."""
    for _ in range(100):
        if counts() == expected:
            break
        await asyncio.sleep(0.01)
    return counts()


@asynccontextmanager
async def installation(home: Path, *packages: Path) -> AsyncIterator[str]:
    """Run a broker, and a coordinator that knows `packages`; give the broker's URL."""
    async with Embedded(home / "broker") as broker:
        environment = {"VIRTBUS_SERVER": broker.url, "PYTHONPATH": ":".join(map(str, [PROJECT_ROOT, *packages]))}
        coordinator = Child("coordinator", ["-m", "orchestrator.cli", "--wait", "coordinator", "--name", "c"], environment, home / "log")
        await coordinator.start()
        try:
            yield broker.url
        finally:
            await coordinator.stop(2.0)


@asynccontextmanager
async def program(url: str, home: Path, one: Held, two: Held) -> AsyncIterator[Client]:
    """Embed a client and two workers in a program that knows asyncio only."""
    async with (
        Client.connect(url) as vm,
        Worker(url, node="n1", hypervisors=[one], data_dir=home / "n1") as first,
        Worker(url, node="n2", hypervisors=[two], data_dir=home / "n2") as second,
        asyncio.TaskGroup() as tasks,
    ):
        running = [tasks.create_task(worker.run()) for worker in (first, second)]
        await first.ready()
        await second.ready()
        yield vm
        for task in running:
            task.cancel()


async def waits(vm: Client, id: str, domain: str) -> None:
    """Return once the worker has taken a command in that waits behind another one."""
    while (await vm.command(id, domain=domain))["phase"] != "received":
        await asyncio.sleep(0.01)


async def cut_off(url: str, home: Path, one: Held, two: Held) -> None:
    """Have a command under way and another one behind it on each node; then hang, to be cancelled."""
    async with program(url, home, one, two) as vm, asyncio.TaskGroup() as calls:
        await vm.create_xml("web1", TEST.format(name="web1"), node="n1")
        for name in ("web1", "web2"):
            await vm.wait(name, state="running", timeout=10)
            await vm.post(name, "suspend", id=f"{name}-begun")
            await vm.post(name, "resume", id=f"{name}-waiting")
        for held, name in ((one, "web1"), (two, "web2")):
            await asyncio.to_thread(held.entered.wait, 10)
            await waits(vm, f"{name}-waiting", name)
            calls.create_task(vm.resume(name, id=f"{name}-waiting"))  # the client too is in the middle of something
        for held in (one, two):
            asyncio.get_running_loop().call_later(0.1, held.gate.set)
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(60)


async def ends(vm: Client, ids: set[str]) -> dict[str, Event]:
    """Return the terminal event of each command, once all have one; none has two."""
    found: dict[str, Event] = {}
    seen: Counter[str] = Counter()
    async for event in vm.events(since=0.0, kinds=("command",)):
        if event.name in TERMINAL and event.commandid in ids:
            found[event.commandid] = event
            seen[event.commandid] += 1
            if found.keys() == ids:
                break
    assert set(seen.values()) == {1}
    return found


async def foreign(home: Path) -> None:
    """Be the program: run, be cancelled, run again."""
    await asyncio.to_thread(lambda: None)  # its own executor is there before anything is counted
    description = home / "n2.xml"
    description.write_text(LIVING)
    async with asyncio.timeout(60), installation(home) as url:
        before = counts()
        one, two = Held("test:///default", after=True), Held(f"test://{description}", after=False)
        task = asyncio.create_task(cut_off(url, home, one, two))
        await asyncio.wait([task])
        assert task.cancelled()
        assert before == await settled(before)
        assert (one.calls, two.calls) == (["create-xml", "suspend"], ["suspend"])

        again, anew = Held("test:///default", after=True), Held(f"test://{description}", after=False)
        async with program(url, home, again, anew) as vm:
            for name in ("web1", "web2"):
                await vm.set_autostart(name, id=f"{name}-last")  # behind all others of its domain
            told = await ends(vm, {f"{name}-{which}" for name in ("web1", "web2") for which in ("begun", "waiting", "last")})
        assert before == await settled(before)
    outcomes = {id: event.name.removeprefix("command.") for id, event in told.items()}
    assert outcomes == {
        "web1-begun": "succeeded",  # seen to be done, and not done again
        "web1-waiting": "succeeded",
        "web1-last": "succeeded",
        "web2-begun": "failed",  # seen not to be done
        "web2-waiting": "succeeded",
        "web2-last": "succeeded",
    }
    assert again.calls == ["resume", "set-autostart"]
    assert anew.calls == ["set-autostart"], "it runs already: nothing to resume"


def test_workers_and_a_client_cancelled_in_the_middle_of_commands_leave_nothing_behind_and_lose_nothing(tmp_path: Path) -> None:
    """Threads, tasks and descriptors are counted; the next start settles what had begun and runs what had not, each to one end."""
    keeper = LibvirtDriver("test:///default")  # its domains end with its last connection
    keeper.open(Nobody())
    try:
        asyncio.run(foreign(tmp_path))
    finally:
        keeper.close()


MINE = '''
from typing import Annotated

import msgspec

from orchestrator.protocol.verb import Verb
from workers.drivers.memory import MemoryDriver

NOTES = []


class NoteArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    text: Annotated[str, msgspec.Meta(description="what to write down")]


def note(driver, uuid, args):
    NOTES.append((driver.uri, args.text))


NOTE = Verb(name="note", args=NoteArgs, summary="write something down", run=note)


class MineDriver(MemoryDriver):
    """A hypervisor in memory."""
'''


def package(home: Path) -> Path:
    """Install a package that brings a driver and a verb; return where it is."""
    place = home / "site"
    offered = place / "mine-1.dist-info"
    offered.mkdir(parents=True)
    (place / "mine.py").write_text(MINE)
    (offered / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (offered / "entry_points.txt").write_text("[virtbus.drivers]\nmine = mine:MineDriver\n[virtbus.verbs]\nnote = mine:NOTE\n")
    return place


async def extended(home: Path, place: Path) -> tuple[Result, str, int]:
    """Use the package's driver and verb, with a worker on the program's own connection; return what client and command line said."""
    async with asyncio.timeout(60), installation(home, place) as url:
        connection = await nats.connect(url)
        async with (
            Worker(connection, node="n1", hypervisors=["mine:///here"], data_dir=home / "n1") as worker,
            Client.connect(connection) as vm,
            asyncio.TaskGroup() as tasks,
        ):
            running = tasks.create_task(worker.run())
            await worker.ready()
            await vm.create_xml("web1", TEST.format(name="web1"))
            result = await vm.call("web1", "note", {"text": "from the client"})
            arguments = ["-m", "orchestrator.cli", "--server", url, "note", "web1", "--text", "from the command line"]
            environment = {**os.environ, "PYTHONPATH": f"{PROJECT_ROOT}:{place}"}
            said = await asyncio.create_subprocess_exec(sys.executable, "-P", *arguments, env=environment, stdout=PIPE)
            output, _ = await said.communicate()
            running.cancel()
        left = len(connection._subs)
        await connection.close()
        return result, output.decode(), left


def test_a_verb_and_a_driver_that_a_package_brings_are_known_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker, coordinator, client and command line, each by its entry points; the program's connection is given back as it was."""
    place = package(tmp_path)
    monkeypatch.syspath_prepend(place)
    try:
        result, output, left = asyncio.run(extended(tmp_path, place))
        notes = importlib.import_module("mine").NOTES
    finally:
        VERBS.pop("note", None)
        sys.modules.pop("mine", None)
    assert notes == [("mine:///here", "from the client"), ("mine:///here", "from the command line")]
    assert (result.verb, result.ok, result.changed) == ("note", True, True)
    assert "note" in output
    assert left == 0
