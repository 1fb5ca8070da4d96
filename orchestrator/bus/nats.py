"""The bus on NATS with JetStream (nats-server 2.12 or newer)."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Self

import anyio
import anyio.abc

from orchestrator.bus.nats_channel import Channel, Standing
from orchestrator.bus.nats_client import Connection, Options
from orchestrator.bus.nats_examiner import Examiner
from orchestrator.bus.nats_fault import parse_servers, shown
from orchestrator.bus.nats_log import Logs
from orchestrator.bus.nats_reader import PullReader
from orchestrator.bus.port import (
    NO_HEADERS,
    Clock,
    Deliver,
    Expect,
    Headers,
    LogConfig,
    Message,
    Outgoing,
    Serve,
    Start,
    Subscription,
    Unavailable,
)
from orchestrator.bus.queued import Queued
from orchestrator.bus.serving import background, serving


class ChannelBus:
    """The port's `Bus`, over a channel."""

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self._channel = channel
        self._logs = Logs(channel, clock)
        self._clock = clock
        self._background: AbstractAsyncContextManager[anyio.abc.TaskGroup]

    @property
    def link(self) -> Standing:
        """Where the connection stands."""
        return self._channel.link

    @property
    def fault(self) -> str:
        """Why there is no connection, in one sentence; what it was last time, if there is one."""
        return self._channel.fault

    @property
    def offset_s(self) -> float:
        """Broker's clock minus ours as last learnt, 0.0 before."""
        return self._logs.offset_s

    @property
    def examiner(self) -> Examiner:
        """What looks the broker over, for people in trouble."""
        return Examiner(self._channel)

    async def __aenter__(self) -> Self:
        self._background = background()
        (await self._background.__aenter__()).start_soon(self._channel.run)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._channel.leave()
        await self._background.__aexit__(None, None, None)

    async def publish(self, subject: str, body: bytes, headers: Headers = NO_HEADERS) -> None:
        """Send to whoever listens now."""
        await self._channel.send(subject, body, "", headers)

    async def request(self, subject: str, body: bytes, headers: Headers = NO_HEADERS, *, timeout_s: float) -> Message:
        """Ask and return the answer."""
        return await self._channel.request(subject, body, headers, timeout_s=timeout_s)

    @asynccontextmanager
    async def subscribe(self, subject: str, *, queue: str = "", limit: int = 65_536) -> AsyncIterator[Subscription]:
        """Listen with a queue between."""
        queued = Queued(limit)
        async with self._channel.listen(subject, queued.put, queue):
            try:
                yield queued
            finally:
                queued.leave()

    @asynccontextmanager
    async def listen(self, subject: str, deliver: Deliver) -> AsyncIterator[None]:
        """Listen with nothing between."""
        async with self._channel.listen(subject, deliver):
            yield

    @asynccontextmanager
    async def serve(
        self, service: str, subject: str, answer: Serve, *, version: str, metadata: Mapping[str, str], limit: int = 4096
    ) -> AsyncIterator[None]:
        """Answer requests."""
        tap = self._channel.listen
        async with serving(
            service, subject, answer, version=version, metadata=metadata, limit=limit, tap=tap, send=self.publish, clock=self._clock
        ):
            yield

    async def append(self, message: Outgoing, expect: Expect | None = None) -> int:
        """Store one message."""
        return await self._logs.append(message, expect)

    async def append_all(self, messages: Sequence[Outgoing], expect: Expect) -> int:
        """Store messages as one."""
        return await self._logs.append_all(messages, expect)

    async def last(self, log: str, subjects: str) -> Message | None:
        """Read the last message under `subjects`."""
        return await self._logs.last(log, subjects)

    async def reader(self, log: str, name: str, subjects: str, start: Start) -> PullReader:
        """Make a reader."""
        return await self._logs.reader(log, name, subjects, start)

    async def purge(self, log: str, subjects: str, up_to: int) -> int:
        """Remove messages."""
        return await self._logs.purge(log, subjects, up_to)

    async def provision(self, logs: Sequence[LogConfig]) -> None:
        """Make or update logs."""
        await self._logs.provision(logs)


class NatsBus(ChannelBus):
    """The port's `Bus`, with a connection of its own.

    url: `nats://host:port` or `tls://host:port`, several separated by commas. name: shown in the broker's monitoring.
    user and password, token, credentials (a `.creds` file) or nkey_seed (a seed file): who we are; files are read anew at each connect.
    inbox_prefix: where answers come to; a permission can hold a user to its own.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        credentials: Path | None = None,
        nkey_seed: Path | None = None,
        tls: ssl.SSLContext | None = None,
        inbox_prefix: str = "_INBOX",
        clock: Clock = time.time,
    ) -> None:
        options = Options(
            name=name,
            user=user,
            password=password,
            token=token,
            credentials=str(credentials) if credentials is not None else None,
            nkey_seed=str(nkey_seed) if nkey_seed is not None else None,
            tls=tls,
        )
        servers = parse_servers(url)
        super().__init__(Channel(lambda on_error: Connection(on_error, servers, options), shown(servers), inbox_prefix), clock)


async def connect_or_explain(bus: ChannelBus, within_s: float = 3.0) -> None:
    """Wait until connected; raise `Unavailable` with the reason in one sentence if that takes longer."""
    with anyio.move_on_after(within_s):
        await bus.link.up()
        return
    raise Unavailable(bus.fault)
