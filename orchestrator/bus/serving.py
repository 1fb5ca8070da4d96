"""Answering requests as a NATS micro service (ADR-32), on any bus: each request a task of its own, bounded."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.abc
import msgspec

from orchestrator.bus.crowd import Crowd
from orchestrator.bus.port import BusError, Clock, Deliver, Headers, Message, Serve, Unavailable
from orchestrator.log import get_logger
from orchestrator.protocol.command import HEADER_ERROR, refusal
from orchestrator.protocol.error import Busy, Internal

_SCHEMA = "io.nats.micro.v1"
_ACK = "$JS.ACK"
_GRACE_S = 1.0

_log = get_logger()

Send = Callable[[str, bytes, Headers], Awaitable[None]]
"""Publishes an answer."""


Tap = Callable[[str, Deliver, str], AbstractAsyncContextManager[None]]
"""Listens on a subject, as a member of a queue group if that is not empty."""


@asynccontextmanager
async def background() -> AsyncIterator[anyio.abc.TaskGroup]:
    """Give a task group whose tasks end with the context; unlike that of the group itself, the body's errors come out as they are."""
    group = anyio.create_task_group()
    await group.__aenter__()
    try:
        yield group
    finally:
        group.cancel_scope.cancel()
        await group.__aexit__(None, None, None)


@asynccontextmanager
async def serving(
    name: str,
    subject: str,
    answer: Serve,
    *,
    version: str,
    metadata: Mapping[str, str],
    limit: int,
    tap: Tap,
    send: Send,
    clock: Clock,
) -> AsyncIterator[None]:
    """Serve for as long as the context lasts; then take no more, and give what is under way a second."""
    async with Crowd() as tasks:
        service = Service(name, subject, answer, version=version, metadata=metadata, limit=limit, send=send, tasks=tasks, clock=clock)
        async with AsyncExitStack() as taps:
            await taps.enter_async_context(tap(subject, service.take, name))
            for found in service.discovery:
                await taps.enter_async_context(tap(found, service.tell, ""))
            yield
        with anyio.move_on_after(_GRACE_S):
            await service.idle()


class Service:
    """One service with one endpoint: takes requests, and tells who it is and how it fares.

    The bus brings requests to `take` and the messages of `discovery` to `tell`; all work runs in `tasks`.
    """

    def __init__(
        self,
        name: str,
        subject: str,
        answer: Serve,
        *,
        version: str,
        metadata: Mapping[str, str],
        limit: int,
        send: Send,
        tasks: Crowd,
        clock: Clock,
    ) -> None:
        self._identity = {"name": name, "id": secrets.token_hex(11), "version": version, "metadata": dict(metadata)}
        self._endpoint = {"name": "requests", "subject": subject, "queue_group": name}
        self._answer = answer
        self._limit = limit
        self._send = send
        self._tasks = tasks
        self._started = datetime.fromtimestamp(clock(), UTC).isoformat()
        self._running = 0
        self._idle = anyio.Event()
        self._requests = 0
        self._errors = 0
        self._last_error = ""
        self._busy_ns = 0

    @property
    def discovery(self) -> list[str]:
        """Subjects whose messages `tell` answers."""
        name, id = self._identity["name"], self._identity["id"]
        return ["$SRV.*", f"$SRV.*.{name}", f"$SRV.*.{name}.{id}"]

    def take(self, message: Message) -> None:
        """Begin to answer a request; `busy` beyond the limit. Acknowledgement subjects are nobody who asks: ignored."""
        if message.reply.startswith(_ACK):
            return
        if self._running >= self._limit:
            self._requests += 1
            self._tasks.start(self._reply(message, *refusal(Busy(f"{self._limit} requests are being answered; try again"))))
            return
        self._running += 1
        self._tasks.start(self._run(message))

    def tell(self, message: Message) -> None:
        """Answer PING, INFO or STATS."""
        kind = message.subject.split(".")[1]
        body = {"PING": self._ping, "INFO": self._info, "STATS": self._stats}.get(kind)
        if body is not None and message.reply:
            self._tasks.start(self._reply(message, msgspec.json.encode(body()), {}))

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        while self._running:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _run(self, message: Message) -> None:
        began = time.perf_counter_ns()
        try:
            await self._reply(message, *await self._answered(message))
        finally:
            self._running -= 1
            self._requests += 1
            self._busy_ns += time.perf_counter_ns() - began
            if not self._running:
                self._idle.set()

    async def _answered(self, message: Message) -> tuple[bytes, Headers]:
        try:
            return await self._answer(message)
        except Exception:  # noqa: BLE001  # the root of a request: what went wrong is for our log, never for the one who asks
            _log.exception("service.failed", service=self._identity["name"], subject=message.subject)
            return refusal(Internal("the request failed here; see the log of the service"))

    async def _reply(self, message: Message, body: bytes, headers: Headers) -> None:
        if HEADER_ERROR in headers:
            self._errors += 1
            self._last_error = headers[HEADER_ERROR]
        if not message.reply:
            return
        try:
            await self._send(message.reply, body, headers)
        except Unavailable as error:
            _log.warning("service.answer_lost", service=self._identity["name"], subject=message.subject, reason=str(error))
        except Exception:  # noqa: BLE001  # whoever made an answer that cannot be sent, too large or none at all, is at fault
            _log.exception("service.answer_unfit", service=self._identity["name"], subject=message.subject)
            with suppress(BusError):
                await self._send(message.reply, *refusal(Internal("the answer cannot be sent; see the log of the service")))

    def _ping(self) -> dict[str, Any]:
        return {"type": f"{_SCHEMA}.ping_response", **self._identity}

    def _info(self) -> dict[str, Any]:
        return {"type": f"{_SCHEMA}.info_response", **self._identity, "description": "", "endpoints": [{**self._endpoint, "metadata": {}}]}

    def _stats(self) -> dict[str, Any]:
        figures = {
            "num_requests": self._requests,
            "num_errors": self._errors,
            "last_error": self._last_error,
            "processing_time": self._busy_ns,
            "average_processing_time": self._busy_ns // self._requests if self._requests else 0,
        }
        return {
            "type": f"{_SCHEMA}.stats_response",
            **self._identity,
            "started": self._started,
            "endpoints": [{**self._endpoint, **figures}],
        }
