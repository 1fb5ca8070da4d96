"""Cancelling over a real broker: two coordinators, two workers with hypervisors in memory, each with its own credentials."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Bus, Outgoing
from orchestrator.bus.reach import bus_at
from orchestrator.client import Client
from orchestrator.engine.coordinator import Coordinator
from orchestrator.protocol import permission
from orchestrator.protocol.command import Result
from orchestrator.protocol.error import Conflict, NotFound
from orchestrator.protocol.subject import Subjects
from orchestrator.service import make
from tests.e2e.audit import ends, parsed
from tests.e2e.fleet import everything
from workers.drivers.memory import Fault, MemoryDriver
from workers.worker import Worker

pytestmark = pytest.mark.anyio

SUBJECTS = Subjects()
XML = "<domain type='test'><memory>8192</memory><os><type>hvm</type></os></domain>"


class Installation:
    """What runs. shop: a client of the project `default` that may use `run`; `bus`: its bus."""

    def __init__(self, broker: Embedded, bus: Bus, drivers: dict[str, MemoryDriver]) -> None:
        self.broker = broker
        self.bus = bus
        self.shop = Client(bus, reader="shop")
        self.drivers = drivers

    async def held(self, node: str, verb: str) -> Fault:
        """Return what holds the next call of `verb` on a node; release it."""
        return self.drivers[node].faults.hang(verb)

    async def told(self) -> dict[str, str]:
        """Return how all commands so far have ended, each once."""
        async with NatsBus(self.broker.url, name="test") as bus:
            told = ends(parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events)))
        assert {} == {id: events for id, events in told.items() if len(events) != 1}
        return {id: events[0]["type"].removeprefix("virt.v1.") for id, events in told.items()}


@asynccontextmanager
async def installed(home: Path) -> AsyncIterator[Installation]:
    """Run an installation; all of it ends with the context."""
    allowed = {
        **{name: permission.coordinator(SUBJECTS, name) for name in ("c1", "c2")},
        **{name: permission.worker(SUBJECTS, name) for name in ("n1", "n2")},
        "shop": permission.client(SUBJECTS, "shop", "default", direct=True),
    }
    passwords = {name: secrets.token_hex(8) for name in ("local", *allowed)}
    users = [User(name=name, password=password, permissions=allowed.get(name)) for name, password in passwords.items()]
    drivers = {node: MemoryDriver(f"memory:///{node}") for node in ("n1", "n2")}
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Embedded(home / "broker", users=users, no_auth_user="local"))

        async def bus_of(name: str) -> Bus:
            url = broker.url.replace("://", f"://{name}:{passwords[name]}@")
            bus = await stack.enter_async_context(bus_at(url, name=name))
            await bus.link.up()
            return bus

        buses = {name: await bus_of(name) for name in passwords}
        await make(buses["local"], SUBJECTS)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for name in ("c1", "c2"):
            await tasks.start(Coordinator(buses[name], subjects=SUBJECTS, name=name, version="1").run)
        for node, driver in drivers.items():
            worker = Worker(buses[node], node=node, hypervisors=[driver], data_dir=home / node)
            await tasks.start((await stack.enter_async_context(worker)).run)
        yield Installation(broker, buses["shop"], drivers)
        tasks.cancel_scope.cancel()


async def test_what_waits_at_its_node_is_cancelled_and_what_has_begun_is_not(tmp_path: Path) -> None:
    """Also by a client that speaks to the node itself."""
    async with installed(tmp_path) as here:
        vm = here.shop
        made = await vm.call("web1", "create-xml", {"xml": XML, "node": "n1"}, id="made")
        assert made.domain is not None
        held = await here.held("n1", "suspend")
        for verb, id in (("suspend", "busy"), ("destroy", "t1"), ("reset", "t2"), ("resume", "next")):
            await vm.post("web1", verb, id=id)
        await anyio.to_thread.run_sync(held.entered.wait)
        done = await vm.cancel("t1", domain="web1")
        again = await vm.cancel("t1")
        with pytest.raises(Conflict):
            await vm.cancel("busy")
        with pytest.raises(NotFound):
            await vm.cancel("nothing")
        subject = SUBJECTS.run("n1", "default", made.domain.uuid, "cancel")
        await here.bus.append(Outgoing(subject, b'{"id": "direct", "args": {"id": "t2"}}'))
        with anyio.fail_after(10):
            while (await vm.command("direct")).get("result") is None:
                await anyio.sleep(0.01)
        held.release()
        with anyio.fail_after(10):
            while (await vm.command("next")).get("result") is None:
                await anyio.sleep(0.01)
        assert (True, "n1", {"id": "t1", "state": "cancelled"}) == (done.changed, done.node, done.result)
        assert (False, done.result) == (again.changed, again.result)
        assert [("create-xml", "suspend", "resume")] == [tuple(verb for verb, _ in here.drivers["n1"].calls)]
        repeated = await vm.attempt("web1", "destroy", id="t1")
        assert repeated.error, "a repeat of what was cancelled is answered with its end"
        assert "cancelled" == repeated.error.code
        told = await here.told()
        assert ["command.cancelled", "command.cancelled", "command.succeeded"] == [told[id] for id in ("t1", "t2", "direct")]


async def test_what_waits_at_a_coordinator_is_cancelled_by_whichever_is_asked(tmp_path: Path) -> None:
    """Nothing of it comes to a node, and who waits for it is answered."""
    async with installed(tmp_path) as here, anyio.create_task_group() as tasks:
        vm = here.shop
        held = await here.held("n2", "create-xml")
        await vm.post("web2", "create-xml", {"xml": XML, "node": "n2"}, id="made")
        await anyio.to_thread.run_sync(held.entered.wait)
        ended: dict[str, Result] = {}

        async def start(id: str) -> None:
            ended[id] = await vm.attempt("web2", "start", id=id)

        targets = [f"t{number}" for number in range(4)]
        for id in targets:
            tasks.start_soon(start, id)
        await anyio.sleep(0.2)
        done = [await vm.cancel(id) for id in targets]
        held.release()
        with anyio.fail_after(10):
            while len(ended) < len(targets) or (await vm.command("made")).get("result") is None:
                await anyio.sleep(0.01)
        told = await here.told()
        assert [(True, "_")] * 4 == [(result.changed, result.node) for result in done]
        assert ["command.cancelled"] * 4 == [told[id] for id in targets]
        assert ["cancelled"] * 4 == [result.error.code for result in ended.values() if result.error]
        assert ["create-xml"] == [verb for verb, _ in here.drivers["n2"].calls]
