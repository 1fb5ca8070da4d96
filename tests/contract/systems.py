"""What each contract of bus and store is run on: a broker in memory, and a real one behind wires that can be cut."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Protocol, cast

import anyio
import anyio.abc
import nats
from nats.aio.client import Server

from orchestrator.bus.embedded import Embedded
from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.nats import NatsBus
from orchestrator.bus.nats_borrowed import BorrowedBus
from orchestrator.bus.port import Bus, Message

_SKEW_S = 0.25

_numbers = count(1)


class System(Protocol):
    """A broker, buses on it, and the faults that tests need. `word` is a token that no other test uses."""

    word: str

    def bus(self, *, cut: bool = False) -> AbstractAsyncContextManager[Bus]:
        """Give a bus, entered and connected; with `cut` entered only."""

    def cut(self, bus: Bus, *, on_answer: bool = False) -> None:
        """Break a bus's connection until `restore`: now, or in place of the broker's next answer."""

    def restore(self, bus: Bus) -> None:
        """Let a bus connect again."""

    async def stop(self) -> None:
        """Stop the broker."""

    async def start(self) -> None:
        """Start it again, with what it had stored."""

    async def forge(self, subject: str, body: bytes, reply: str) -> None:
        """Publish with a reply subject of one's choice, as any client may."""


class MemorySystem:
    """The broker in memory; its clock is a little fast."""

    def __init__(self) -> None:
        self.word = f"m{next(_numbers)}"
        self._broker = MemoryBroker(lambda: time.time() + _SKEW_S)

    @asynccontextmanager
    async def bus(self, *, cut: bool = False) -> AsyncIterator[Bus]:
        """Give a bus of the broker."""
        bus = MemoryBus(self._broker)
        if cut:
            self._broker.cut(bus)
        async with bus:
            if not cut:
                await bus.link.up()
            yield bus

    def cut(self, bus: Bus, *, on_answer: bool = False) -> None:
        """Cut as the broker itself offers."""
        self._broker.cut(cast(MemoryBus, bus), on_answer=on_answer)

    def restore(self, bus: Bus) -> None:
        """Restore as the broker itself offers."""
        self._broker.restore(cast(MemoryBus, bus))

    async def stop(self) -> None:
        """Stop the broker."""
        self._broker.stop()

    async def start(self) -> None:
        """Start the broker."""
        self._broker.start()

    async def forge(self, subject: str, body: bytes, reply: str) -> None:
        """Publish at the broker itself."""
        self._broker.publish(Message(subject, body, reply=reply))


class Wire:
    """A way to a real broker that can be cut."""

    def __init__(self, broker: Embedded, *, barred: bool) -> None:
        self.port = 0
        self.barred = barred
        self.barred_on_answer = False
        self._broker = broker
        self._sessions: set[anyio.CancelScope] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen for as long as the context lasts."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
            self.port = int(listener.extra_attributes[anyio.abc.SocketAttribute.local_port]())
            tasks.start_soon(listener.serve, self._connected)
            yield
            tasks.cancel_scope.cancel()

    def cut(self) -> None:
        """End all connections, and let no new one in."""
        self.barred = True
        for session in self._sessions:
            session.cancel()

    async def _connected(self, near: anyio.abc.SocketStream) -> None:
        async with near:
            if self.barred:
                return
            try:
                far = await anyio.connect_tcp("127.0.0.1", port_of(self._broker))
            except OSError:
                return
            async with far, anyio.create_task_group() as tasks:
                self._sessions.add(tasks.cancel_scope)
                tasks.start_soon(self._forward, near, far, False, tasks.cancel_scope)
                tasks.start_soon(self._forward, far, near, True, tasks.cancel_scope)
            self._sessions.discard(tasks.cancel_scope)

    async def _forward(
        self, source: anyio.abc.SocketStream, target: anyio.abc.SocketStream, answers: bool, session: anyio.CancelScope
    ) -> None:
        try:
            async for data in source:
                if answers and self.barred_on_answer and b"MSG " in data:
                    self.barred_on_answer = False
                    self.cut()
                    return
                await target.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            session.cancel()


class NatsSystem:
    """A real broker, and a wire of its own for each bus."""

    def __init__(self, broker: Embedded) -> None:
        self.word = f"n{next(_numbers)}"
        self._broker = broker
        self._wires: dict[Bus, Wire] = {}

    @asynccontextmanager
    async def bus(self, *, cut: bool = False) -> AsyncIterator[Bus]:
        """Give a bus that connects over a wire."""
        wire = Wire(self._broker, barred=cut)
        async with wire.open(), self._bus_on(wire) as bus:
            self._wires[bus] = wire
            async with bus:
                if not cut:
                    await bus.link.up()
                yield bus

    @asynccontextmanager
    async def _bus_on(self, wire: Wire) -> AsyncIterator[Bus]:
        yield NatsBus(f"nats://127.0.0.1:{wire.port}", name=self.word)

    def cut(self, bus: Bus, *, on_answer: bool = False) -> None:
        """Cut the bus's wire."""
        if on_answer:
            self._wires[bus].barred_on_answer = True
        else:
            self._wires[bus].cut()

    def restore(self, bus: Bus) -> None:
        """Let connections through again."""
        self._wires[bus].barred = False

    async def stop(self) -> None:
        """Stop the server in order."""
        await self._broker.stop()

    async def start(self) -> None:
        """Start the server on its port and its store."""
        await self._broker.start()

    async def forge(self, subject: str, body: bytes, reply: str) -> None:
        """Speak the broker's protocol by hand."""
        async with await anyio.connect_tcp("127.0.0.1", port_of(self._broker)) as stream:
            head = f'CONNECT {{"verbose":false}}\r\nPUB {subject} {reply} {len(body)}\r\n'
            await stream.send(head.encode() + body + b"\r\nPING\r\n")
            seen = b""
            while b"PONG" not in seen:
                seen += await stream.receive()


class BorrowedSystem(NatsSystem):
    """A real broker, and connections that a program made with nats-py, each over a wire of its own."""

    @asynccontextmanager
    async def _bus_on(self, wire: Wire) -> AsyncIterator[Bus]:
        barred, wire.barred = wire.barred, False

        def choose(servers: list[Server], _: object) -> tuple[Server, float]:
            # nats-py leaves a socket open where what it reached does not greet it
            if wire.barred:
                raise ConnectionRefusedError
            socket.create_connection(("127.0.0.1", port_of(self._broker))).close()
            return servers[0], 0.0

        connection = await nats.connect(
            f"nats://127.0.0.1:{wire.port}", error_cb=_rest, max_reconnect_attempts=-1, reconnect_to_server_handler=choose
        )
        if barred:
            wire.cut()
            while not connection.is_reconnecting:
                await anyio.sleep(0.001)
        try:
            yield BorrowedBus(connection)
        finally:
            wire.barred = False
            while connection.is_reconnecting:  # closed in the middle of it, nats-py leaves a socket open
                await anyio.sleep(0.001)
            await connection.close()


async def _rest(_: Exception) -> None:
    """Say nothing of what tests do to connections; nats-py asks again at once."""
    await anyio.sleep(0.01)


def port_of(broker: Embedded) -> int:
    """Return where a broker listens."""
    return int(broker.url.rpartition(":")[2])
