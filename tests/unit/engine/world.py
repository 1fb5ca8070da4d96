"""A broker in memory with coordinators and scripted workers, for tests of the engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from orchestrator.bus.logs import buckets, logs
from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Headers, LogConfig, Message, Outgoing, Start
from orchestrator.engine.coordinator import Coordinator
from orchestrator.engine.pace import Pace
from orchestrator.protocol import codec, domainxml, token
from orchestrator.protocol.cancel import CancelledBy, TooLate, ended, fulfilled
from orchestrator.protocol.command import DomainRef, Result, answer, decode_command, refusal
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.error import AlreadyExists, Conflict, NotFound, WireError
from orchestrator.protocol.event import Event, event
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.node import Allocated, Hypervisor, Leader, Lease, Node
from orchestrator.protocol.subject import Subjects, domain_key
from orchestrator.protocol.verb import VERBS, find
from orchestrator.store.kv import KeyValue

SUBJECTS = Subjects()
QUICK = Pace(look=0.1, retry=0.01, ask=2.0, tick=0.05, renew=0.05)
VERB_NAMES = [name for name, verb in VERBS.items() if verb.kind == "verb"]


def xml(name: str | None = None, uuid: str | None = None, *, memory_kib: int = 1024, type: str = "test") -> str:
    """Return a small domain's XML."""
    named = f"<name>{name}</name>" if name else ""
    identified = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"<domain type='{type}'>{named}{identified}<memory>{memory_kib}</memory><os><type>hvm</type></os></domain>"


def uuid_of(number: int) -> str:
    """Return one of many UUIDs."""
    return f"00000000-0000-4000-8000-{number:012d}"


def node_record(name: str, epoch: str, *, free_kib: int = 1_000_000, types: tuple[str, ...] = ("test",), schedulable: bool = True) -> Node:
    """Return a node that can do everything."""
    uri = "test:///default"
    hypervisor = Hypervisor(uri=uri, types=list(types), version="9.0.0", verbs=VERB_NAMES, events=["lifecycle"], connected=True)
    return Node(
        node=name,
        epoch=epoch,
        version="1",
        hypervisors=[hypervisor],
        arch="x86_64",
        cpus=2,
        memory_kib=2_000_000,
        free_memory_kib=free_kib,
        allocated=Allocated(vcpus=0, memory_kib=0),
        domain_count=0,
        labels={},
        schedulable=schedulable,
        updated=timestamp(time.time()),
    )


class Worker:
    """Runs what its node is told, in the order of the log, once; keeps the laws that coordinators rely on.

    gate: what a command must get through before it takes effect, by verb. mute: results are not sent, events still are.
    """

    def __init__(self, broker: MemoryBroker, name: str, *, free_kib: int = 1_000_000, types: tuple[str, ...] = ("test",)) -> None:
        self.name = name
        self.epoch = token.ulid(int(time.time() * 1000), name.encode().ljust(10, b"x")[:10])
        self.bus = MemoryBus(broker, name=name)
        self.domains: dict[str, Observed] = {}
        self.ran: list[tuple[str, str, str]] = []
        """Project, id and verb of what took effect, in order."""
        self.received: list[Message] = []
        self.gate: dict[str, anyio.Event] = {}
        self.fail: dict[str, WireError] = {}
        self.mute = False
        self.leased = False
        self.done = 0
        self._free_kib = free_kib
        self._types = types
        self._ledger: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._queue: list[Message] = []
        self._cancels: list[Message] = []
        self._cancel = anyio.Event()
        self._seen: set[int] = set()
        self._wake = anyio.Event()
        self._sequence = 0

    def bucket(self, name: str) -> KeyValue:
        """Open a bucket."""
        return KeyValue(self.bus, SUBJECTS.bucket(name))

    async def announce(self) -> None:
        """Write the node's record and take its lease."""
        record = node_record(self.name, self.epoch, free_kib=self._free_kib, types=self._types)
        await self.bucket("nodes").put(self.name, codec.encode(record))
        await self.renew()

    async def renew(self) -> None:
        """Renew the lease."""
        self.leased = True
        lease = Lease(node=self.name, epoch=self.epoch, cursor=self.done, done=self.done, updated=timestamp(time.time()))
        await self.bucket("leases").put(self.name, codec.encode(lease))

    async def leave(self) -> None:
        """Give the lease back."""
        self.leased = False
        await self.bucket("leases").remove(self.name, marker_s=60)

    async def run(self) -> None:
        """Take commands and questions for ever."""
        serving = self.bus.serve("virt-worker", SUBJECTS.asks(self.name), self.answer, version="1", metadata={"node": self.name})
        async with self.bus.listen(SUBJECTS.deliveries(self.name), self._push), serving, anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_cancelling)
            reader = await self.bus.reader(SUBJECTS.log_run, self.name, SUBJECTS.runs(self.name), Start())
            while messages := await reader.take(256):
                for message in messages:
                    self._push(msgspec.structs.replace(message, subject=SUBJECTS.delivery(message.subject)))
            while True:
                while self._queue:
                    message = self._queue.pop(0)
                    await self._handle(message)
                    self.done = max(self.done, message.sequence)
                    if self.leased:
                        await self.renew()
                self._wake = anyio.Event()
                await self._wake.wait()

    def _push(self, message: Message) -> None:
        if message.sequence not in self._seen:
            self._seen.add(message.sequence)
            self.received.append(message)
            if message.subject.endswith(".cancel"):
                self._cancels.append(message)
                self._cancel.set()
                return
            self._queue.append(message)
            self._queue.sort(key=lambda each: each.sequence)
            self._wake.set()

    async def _keep_cancelling(self) -> None:
        while True:
            while self._cancels:
                await self._handle_cancel(self._cancels.pop(0))
            self._cancel = anyio.Event()
            await self._cancel.wait()

    async def _handle_cancel(self, message: Message) -> None:
        """Do as a worker does: what waits ends with the cancel, what has begun or ended does not."""
        routed = SUBJECTS.parse_routed(message.subject)
        id, target = message.headers["Virt-Id"], codec.decode(message.body, dict)["args"]["id"]
        if (routed.project, id) in self._ledger:
            await self._send(routed.project, id, self._ledger[routed.project, id][1])
            return
        error: WireError | None = None
        found: dict[str, Any] = {"id": target, "state": "cancelled"}
        known = (routed.project, target) in self._ledger
        waiting = [each for each in self._queue if each.headers.get("Virt-Id") == target and not known]
        if waiting:
            # Of several copies the others are repeats.
            self._queue.remove(waiting[0])
            verb = SUBJECTS.parse_routed(waiting[0].subject).verb
            command = decode_command(find(verb, "verb"), waiting[0].body, waiting[0].headers)
            digest = token.digest(routed.domain.encode(), command.digest.encode())
            await self._end(routed.project, target, routed.domain, verb, digest, False, CancelledBy(id), {"cancelled_by": id})
        elif known:
            try:
                fulfilled(ended(target, self._ledger[routed.project, target][1]))
            except TooLate as late:
                error, found = late, msgspec.to_builtins(late.fate)
        else:
            error = NotFound(f"no command {target}")
        await self._end(routed.project, id, routed.domain, "cancel", "", bool(waiting), error, found)

    async def _handle(self, message: Message) -> None:
        routed = SUBJECTS.parse_routed(message.subject)
        command = decode_command(find(routed.verb, "verb"), message.body, message.headers)
        id = command.id or f"m-run-{message.sequence}"
        digest = token.digest(routed.domain.encode(), command.digest.encode())
        known = self._ledger.get((routed.project, id))
        if known is not None and known[0] == digest:
            await self._send(routed.project, id, known[1])
            return
        error: WireError | None = None
        if known is not None:
            id, error = f"m-run-{message.sequence}", Conflict(f"id {id} was used for another command")
        elif routed.verb in self.gate:
            await self.gate[routed.verb].wait()
        changed = False
        if error is None:
            try:
                changed = await self._act(routed.project, routed.domain, routed.verb, command.args, id)
            except WireError as refused:
                error = refused
        await self._end(routed.project, id, routed.domain, routed.verb, digest, changed, error)

    async def _act(self, project: str, uuid: str, verb: str, args: Any, id: str) -> bool:
        if verb in self.fail:
            raise self.fail[verb]
        seen = self.domains.get(uuid)
        if verb in ("create-xml", "define-xml"):
            if seen is not None and verb == "create-xml":
                raise AlreadyExists(f"domain {uuid} exists")
            said = domainxml.identify(args.xml)
            assert said.uuid == uuid, "a routed domain has its UUID in its XML"
            assert said.name is not None, "a routed domain has its name in its XML"
            self.ran.append((project, id, verb))
            await self.show(project, uuid, said.name, "running" if verb == "create-xml" else "shutoff")
            return True
        if seen is None or seen.project != project:
            raise NotFound(f"domain {uuid} is not here")
        self.ran.append((project, id, verb))
        if verb == "undefine":
            await self.hide(uuid)
            return True
        goal = VERBS[verb].goal
        if goal is not None:
            await self.show(project, uuid, seen.name, goal)
        return True

    async def show(self, project: str, uuid: str, name: str, state: Any = "shutoff") -> None:
        """Have a domain, and say so."""
        self.domains[uuid] = seen = Observed(
            uuid=uuid,
            name=name,
            project=project,
            node=self.name,
            hypervisor="test:///default",
            type="test",
            state=state,
            reason="",
            persistent=True,
            autostart=False,
            vcpus=1,
            memory_kib=1024,
            labels={},
            generation=0,
            incarnation=None,
            role="owner",
            epoch=self.epoch,
            sequence=f"{self._sequence:016d}",
            updated=timestamp(time.time()),
        )
        await self.bucket("domains").put(domain_key(self.name, project, uuid), codec.encode(seen))

    async def hide(self, uuid: str) -> None:
        """Have a domain no more, and say so."""
        seen = self.domains.pop(uuid)
        await self.bucket("domains").remove(domain_key(self.name, seen.project, uuid), marker_s=60)

    async def _end(
        self, project: str, id: str, uuid: str, verb: str, digest: str, changed: bool, error: WireError | None, found: Any = msgspec.UNSET
    ) -> None:
        seen = self.domains.get(uuid)
        result = Result(
            id=id,
            verb=verb,
            ok=error is None,
            changed=changed if error is None else msgspec.UNSET,
            node=self.name,
            project=project,
            domain=DomainRef(uuid=uuid, name=None if seen is None else seen.name),
            result=found,
            error=msgspec.UNSET if error is None else error.failure(),
            duration_ms=0.1,
        )
        body = codec.encode(result)
        await self.tell(result.event, project, uuid, id, body)
        self._ledger[project, id] = digest, body
        await self._send(project, id, body)

    async def tell(self, name: str, project: str, uuid: str, id: str, data: bytes) -> None:
        """Store an event of a command."""
        self._sequence += 1
        told = event(
            prefix=SUBJECTS.prefix,
            name=name,
            source=f"/virt/nodes/{self.name}",
            node=self.name,
            project=project,
            subject=uuid,
            time=timestamp(time.time()),
            epoch=self.epoch,
            sequence=self._sequence,
            previous=0,
            data=msgspec.Raw(data),
            commandid=id,
        )
        await self.bus.append(Outgoing(SUBJECTS.evt(self.name, project, uuid, name), codec.encode(told), {"Nats-Msg-Id": told.id}))

    async def _send(self, project: str, id: str, body: bytes) -> None:
        if not self.mute:
            await self.bus.publish(SUBJECTS.res(self.name, project, id), body)

    async def answer(self, message: Message) -> tuple[bytes, Headers]:
        """Answer a question."""
        routed = SUBJECTS.parse_routed(message.subject)
        try:
            if routed.verb == "command":
                id = codec.decode(message.body, dict)["args"]["id"]
                known = self._ledger.get((routed.project, id))
                if known is None:
                    raise NotFound(f"no command {id}")
                return answer({"command": {"id": id, "node": self.name, "phase": "stored", "result": msgspec.Raw(known[1])}}), {}
            seen = self.domains.get(routed.domain)
            if seen is None or seen.project != routed.project:
                raise NotFound(f"domain {routed.domain} is not here")
            return answer({"domain": seen}), {}
        except WireError as error:
            return refusal(error)


class World:
    """One broker, and whoever is started on it."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker, name="test")
        self.tasks = tasks
        """In which all that is started runs."""
        self.workers: dict[str, Worker] = {}
        self.configs = [*logs(SUBJECTS, created=time.time()), *buckets(SUBJECTS)]

    def bucket(self, name: str) -> KeyValue:
        """Open a bucket."""
        return KeyValue(self.bus, SUBJECTS.bucket(name))

    def smaller(self, config: LogConfig) -> LogConfig:
        """Return the configuration of a log that is full already."""
        return msgspec.structs.replace(config, max_bytes=1)

    def narrower(self, config: LogConfig) -> LogConfig:
        """Return the configuration of a log that takes only tiny messages."""
        return msgspec.structs.replace(config, max_message=10)

    def renamed(self, config: LogConfig, name: str, subjects: str) -> LogConfig:
        """Return the configuration for another log."""
        return msgspec.structs.replace(config, name=name, subjects=(subjects,))

    async def worker(self, name: str, *, free_kib: int = 1_000_000, types: tuple[str, ...] = ("test",)) -> Worker:
        """Start a worker."""
        worker = self.workers[name] = Worker(self.broker, name, free_kib=free_kib, types=types)
        ready = anyio.Event()

        async def work() -> None:
            async with worker.bus:
                await worker.bus.link.up()
                await worker.announce()
                ready.set()
                await worker.run()

        self.tasks.start_soon(work)
        await ready.wait()
        return worker

    async def coordinator(self, name: str = "c1", *, bus: MemoryBus | None = None, pace: Pace = QUICK) -> Running:
        """Start a coordinator, on a bus of its own unless one is given; return once it runs, or has failed."""
        running = Running(self, name, bus or MemoryBus(self.broker, name=name), pace)
        await running.start()
        return running

    async def api(self, project: str, domain: str, verb: str, body: Any = None, *, timeout_s: float = 5.0) -> Any:
        """Ask and return the answer decoded."""
        raw = b"" if body is None else codec.encode(body)
        got = await self.bus.request(SUBJECTS.api(project, domain, verb), raw, timeout_s=timeout_s)
        return codec.decode(got.body, dict)

    async def cmd(self, project: str, domain: str, verb: str, body: Any = None, headers: Headers | None = None) -> int:
        """Leave a command in the log."""
        raw = b"" if body is None else codec.encode(body)
        return await self.bus.append(Outgoing(SUBJECTS.cmd(project, domain, verb), raw, headers or {}))

    async def log(self, log: str, subjects: str = ">") -> list[Message]:
        """Return all that a log keeps."""
        reader = await self.bus.reader(log, "test-log", subjects, Start())
        found: list[Message] = []
        while messages := await reader.take(256):
            found += messages
        return found

    async def events(self, subjects: str | None = None) -> list[Event]:
        """Return all events."""
        return [codec.decode(each.body, Event) for each in await self.log(SUBJECTS.log_evt, subjects or SUBJECTS.events)]

    async def terminals(self) -> dict[tuple[str, str], list[str]]:
        """Return the terminal events' types of each command, by project and id."""
        ended: dict[tuple[str, str], list[str]] = {}
        for each in await self.events():
            if each.name.startswith("command."):
                ended.setdefault((each.project, each.commandid or ""), []).append(each.name)
        return ended

    async def owner(self, uuid: str) -> Owner | None:
        """Return a domain's owner record."""
        entry = await self.bucket("owners").get(uuid)
        return None if entry is None or entry.value is None else codec.decode(entry.value, Owner)

    async def until(self, holds: Callable[[], Any], *, seconds: float = 5.0) -> None:
        """Wait until `holds` (may be async) is true."""
        with anyio.fail_after(seconds):
            while True:
                value = holds()
                if hasattr(value, "__await__"):
                    value = await value
                if value:
                    return
                await anyio.sleep(0.005)


class Running:
    """A coordinator that runs."""

    def __init__(self, world: World, name: str, bus: MemoryBus, pace: Pace) -> None:
        self.world = world
        self.name = name
        self.bus = bus
        self.pace = pace
        self.scope = anyio.CancelScope()
        self.stopped = anyio.Event()
        self._ready = anyio.Event()

    async def start(self) -> None:
        """Let it run; return once it does, or has ended."""
        self.world.tasks.start_soon(self._run)
        await self._ready.wait()

    async def _run(self) -> None:
        try:
            with self.scope:
                async with self.bus, anyio.create_task_group() as tasks:
                    coordinator = Coordinator(self.bus, subjects=SUBJECTS, name=self.name, version="1", pace=self.pace)
                    await tasks.start(coordinator.run)
                    self._ready.set()
        finally:
            self._ready.set()
            self.stopped.set()

    async def leads(self) -> bool:
        """Tell whether it holds leadership."""
        entry = await self.world.bucket("cursors").get("leader")
        return entry is not None and entry.value is not None and codec.decode(entry.value, Leader).coordinator == self.name

    async def stop(self) -> None:
        """Let it leave as on a signal."""
        self.scope.cancel()
        await self.stopped.wait()

    async def kill(self) -> None:
        """End it as kill -9 does: nothing that it does on the way out arrives; its leadership runs out."""
        self.world.broker.cut(self.bus)
        await self.stop()
        await forget_leader(self.world)


async def forget_leader(world: World) -> None:
    """Let leadership run out, as it does by itself after ten seconds."""
    await world.bucket("cursors").remove("leader", marker_s=60)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Make a provisioned broker; all that was started ends with it."""
    async with anyio.create_task_group() as tasks:
        made = World(tasks)
        async with made.bus:
            await made.bus.link.up()
            await made.bus.provision(made.configs)
            yield made
            tasks.cancel_scope.cancel()
