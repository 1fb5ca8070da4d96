"""A foreign program, plain asyncio, that has its own connection to a real broker: client, coordinator and worker live in it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as NatsConnection
from nats.aio.msg import Msg

from orchestrator.bus.embedded import Embedded
from orchestrator.bus.nats_borrowed import BorrowedBus
from orchestrator.bus.reach import bus_at
from orchestrator.client import Client, Conflict, DeadlineExceeded, Invalid, NotFound, Unavailable
from orchestrator.engine.coordinator import Coordinator
from orchestrator.event import CommandFailed, CommandSucceeded, Lifecycle, NodeOnline
from orchestrator.protocol.subject import Subjects
from orchestrator.service import make
from workers.drivers.memory import MemoryDriver
from workers.journal.memory import MemoryDisk, MemoryJournal
from workers.worker import Worker

SUBJECTS = Subjects()
XML = "<domain type='test'><memory>65536</memory><os><type>hvm</type></os></domain>"
PATIENCE_S = 20.0


async def ignore(_: Exception) -> None:
    """Say nothing of what a test does to a connection."""


@asynccontextmanager
async def fleet(home: Path) -> AsyncIterator[tuple[Embedded, NatsConnection]]:
    """Run a broker, a coordinator and a worker with a hypervisor in memory; give the broker and the program's connection to it."""
    async with Embedded(home) as broker, bus_at(broker.url, name="coordinator") as bus, bus_at(broker.url, name="worker") as far:
        await bus.link.up()
        await far.link.up()
        await make(bus, SUBJECTS)
        coordinator = asyncio.create_task(Coordinator(bus, subjects=SUBJECTS, name="c1", version="0.0.0").run())
        connection = await nats.connect(broker.url, error_cb=ignore, reconnect_time_wait=1, max_reconnect_attempts=-1)
        try:
            async with Worker(far, node="n1", hypervisors=[MemoryDriver()], journal=MemoryJournal(MemoryDisk())) as worker:
                running = asyncio.create_task(worker.run())
                await worker.ready()
                yield broker, connection
                running.cancel()
        finally:
            await connection.close()
            coordinator.cancel()
            await asyncio.gather(coordinator, running, return_exceptions=True)


async def life(vm: Client) -> None:
    """Use every kind of call once, several at a time."""
    made = await asyncio.gather(*(vm.create_xml(f"web{number}", XML, id=f"make-{number}") for number in range(5)))
    assert [True] * 5 == [result.changed for result in made]
    assert made[0] == await vm.create_xml("web0", XML, id="make-0")
    assert ["running"] * 5 == [domain.state for domain in await vm.domains()]
    assert {"n1"} == {node.node for node in await vm.nodes()}
    assert "web1" in await vm.xml("web1")
    assert isinstance(await vm.stats("web1"), dict)
    assert "ended" == (await vm.command("make-1"))["phase"]
    waits = asyncio.create_task(vm.wait("web1", state=("shutoff", "crashed"), timeout=PATIENCE_S))
    await vm.destroy("web1")
    assert "shutoff" == (await waits).state
    with pytest.raises(Conflict):
        await vm.suspend("web1")
    with pytest.raises(NotFound):
        await vm.start("web1", project="other")
    with pytest.raises(Invalid):
        await vm.define_xml("web9", "<domain")
    with pytest.raises(DeadlineExceeded, match="web1 is shutoff, not paused"):
        await vm.wait("web1", state="paused", timeout=0.05)
    gone = asyncio.create_task(vm.wait("web1", state=None, timeout=PATIENCE_S))
    await vm.undefine("web1")
    await gone


async def told(vm: Client) -> list[str]:
    """Return what the log tells of web1 and of nodes, in words."""
    words: list[str] = []
    async for event in vm.events(every=True, after=0):
        match event:
            case NodeOnline(subject=node):
                words.append(f"{node} online")
            case Lifecycle(domainname="web1", event=happened):
                words.append(happened)
            case CommandFailed(verb=verb, error=error) if error is not None:
                words.append(f"no {verb}: {error.code}")
            case CommandSucceeded(verb="undefine"):
                return words
    raise AssertionError  # a feed has no end


def test_a_program_uses_its_own_connection_and_gets_it_back(tmp_path: Path) -> None:
    """The client works on it beside the program's own use; left, it leaves neither subscription nor task, and the connection stands."""

    async def program() -> None:
        async with fleet(tmp_path) as (_, connection):
            heard = asyncio.get_running_loop().create_future()

            async def hear(message: Msg) -> None:
                heard.set_result(message.data)

            await connection.subscribe("mine", cb=hear)
            subscriptions = set(connection._subs)
            async with Client.connect(connection) as vm:
                await life(vm)
            tasks = asyncio.all_tasks()
            async with Client.connect(connection) as vm:
                words = await told(vm)
            assert subscriptions == set(connection._subs)
            await connection.publish("mine", b"1")
            async with asyncio.timeout(PATIENCE_S):
                assert b"1" == await heard
                while asyncio.all_tasks() - tasks:  # those of the worker come and go
                    await asyncio.sleep(0.01)
            expected = ["n1 online", "defined", "started", "stopped", "no suspend: conflict", "no start: not_found", "undefined"]
            assert expected == [word for word in words if word in expected]

    asyncio.run(program())


def test_a_program_may_give_a_url_and_leave_nothing(tmp_path: Path) -> None:
    """A connection of the client's own; what was opened is closed, however often."""

    async def program() -> None:
        async with fleet(tmp_path) as (broker, _):
            async with Client.connect(broker.url, project="shop") as vm:
                assert [] == await vm.domains()
            before = traces()
            for _ in range(3):
                async with Client.connect(broker.url) as vm:
                    with pytest.raises(NotFound):
                        await vm.get("web1")
            async with asyncio.timeout(PATIENCE_S):
                while traces() != before:  # tasks of the coordinator come and go
                    await asyncio.sleep(0.01)

    asyncio.run(program())


def traces() -> tuple[int, int, int]:
    """Return how many tasks, threads and descriptors there are."""
    return len(asyncio.all_tasks()), threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208  nothing but names


def test_a_feed_follows_the_programs_connection_through_a_restart(tmp_path: Path) -> None:
    """It reconnects by itself; the feed goes on where it was, and a call that comes too early is offered until it is taken."""

    async def program() -> None:
        async with fleet(tmp_path) as (broker, connection), Client.connect(connection) as vm:
            await vm.define_xml("web1", XML)
            feed = vm.events(domain="web1", kinds=("lifecycle.started",))
            await feed.begin()
            await broker.stop()
            await broker.start()
            async with asyncio.timeout(PATIENCE_S):
                await vm.start("web1")
                async for event in feed:
                    assert isinstance(event, Lifecycle)
                    assert ("started", "web1") == (event.event, event.domainname)
                    break

    asyncio.run(program())


def test_a_connection_that_the_program_closed_is_unavailable(tmp_path: Path) -> None:
    """The client says so, and does not wait for it to come back."""

    async def program() -> None:
        async with fleet(tmp_path) as (_, connection):
            async with BorrowedBus(connection) as bus:
                await bus.link.up()
                await connection.close()
                with pytest.raises(Unavailable):
                    await Client(bus, patience_s=0.0).domains()
            with pytest.raises(Unavailable, match="the program has closed its connection"):
                async with Client.connect(connection):
                    pytest.fail("there is no broker to be reached")

    asyncio.run(program())
