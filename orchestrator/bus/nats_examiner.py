"""Looks a broker over for `virtbus doctor`: what it is, what it holds, and what this user may do, without leaving a trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import msgspec

from orchestrator.bus.nats_channel import Channel
from orchestrator.bus.nats_client import STATUS, seconds
from orchestrator.bus.nats_log import NO_STREAM, differences, stream_config
from orchestrator.bus.port import NO_HEADERS, LogConfig, Message, NoResponder, Unavailable

_API = "$JS.API"
_ANSWER_S = 2.0
_MOMENT_S = 0.2
_NOBODY = "$JS.ACK.virtbus.doctor"
"""A reply subject on which our endpoints answer nothing and do nothing (PROTOCOL §4)."""

_DENIED = "permissions violation"

_REFUSED = {"Nats-Expected-Stream": "none-of-that-name"}
"""Headers with which no log stores a message."""


class Denied(Exception):
    """The broker does not allow it to this user."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A log as it is. differs: settings that are not as provisioned, with both values; full: share of its bytes in use, 0 to 1."""

    differs: dict[str, tuple[Any, Any]] = {}
    full: float = 0.0


class _State(msgspec.Struct, frozen=True):
    bytes: int = 0


class _Error(msgspec.Struct, frozen=True):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    config: dict[str, Any] = {}
    state: _State = _State()
    ts: str = ""
    error: _Error | None = None


class Examiner:
    """Over a channel that is connected. All methods raise `Unavailable` and `Uncertain` of the bus.

    offset_s: the broker's clock minus this machine's, None as long as no answer has told it.
    """

    def __init__(self, channel: Channel, *, clock: Callable[[], float] = time.time) -> None:
        self.offset_s: float | None = None
        self._channel = channel
        self._clock = clock

    @property
    def denials(self) -> list[str]:
        """What the broker said of late that this user may not do."""
        return [said.removeprefix("nats: ") for said in self._channel.complaints if _DENIED in said.lower()]

    async def denied(self) -> str:
        """Wait until the broker says that this user may not do something, and return what."""
        while not self.denials:
            await self._channel.complained()
        return self.denials[-1]

    @property
    def version(self) -> str:
        """The broker's version."""
        return self._channel.connection.version

    async def round_trip_s(self) -> float:
        """Return the seconds that a word to the broker and back takes."""
        began = time.perf_counter()
        await self._channel.connection.barrier()
        return time.perf_counter() - began

    async def stream(self, log: LogConfig) -> Stream | None:
        """Look at a log, None if there is none. Raises `Denied`, and `NoResponder` where the broker has no JetStream."""
        asked = self._clock()
        said = msgspec.json.decode((await self._ask(f"{_API}.STREAM.INFO.{log.name}")).body, type=_Answer)
        if said.ts:
            self.offset_s = seconds(said.ts) - (asked + self._clock()) / 2
        if said.error is not None and said.error.err_code != NO_STREAM:
            raise Unavailable(f"log {log.name}: {said.error.description}")
        if said.error is not None:
            return None
        room = int(said.config.get("max_bytes", -1))
        return Stream(differs=differences(said.config, stream_config(log)), full=said.state.bytes / room if room > 0 else 0.0)

    async def may_publish(self, subject: str) -> bool:
        """Tell whether this user may publish on a subject; what is sent has no effect on logs and endpoints of ours."""
        await self._channel.send(subject, b"", _NOBODY, _REFUSED)
        return not await self._denied("publish", subject)

    async def may_subscribe(self, subject: str) -> bool:
        """Tell whether this user may subscribe to a subject."""
        async with self._channel.listen(subject, lambda _: None):
            return not await self._denied("subscription", subject)

    async def everybody(self, subject: str, *, expected: int) -> list[Message]:
        """Ask all who serve a subject; return the answers once as many as expected are there, and a moment later, or after 2 s.

        Raises `Denied`.
        """
        answers: list[Message] = []
        enough = anyio.Event()

        def take(answer: Message) -> None:
            if STATUS not in answer.headers:
                answers.append(answer)
            if len(answers) >= expected:
                enough.set()

        inbox = f"{self._channel.inbox}.all"
        async with self._channel.listen(f"{inbox}.*", take):
            await self._channel.send(subject, b"", f"{inbox}.1", NO_HEADERS)
            if await self._denied("publish", subject):
                raise Denied(subject)
            with anyio.move_on_after(_ANSWER_S):
                await enough.wait()
                await anyio.sleep(_MOMENT_S)
        return answers

    async def _ask(self, subject: str) -> Message:
        with self._channel.answer(_ANSWER_S) as (inbox, future):
            await self._channel.send(subject, b"", inbox, NO_HEADERS)
            if await self._denied("publish", subject):
                raise Denied(subject)
            message = await future
        if message.headers.get(STATUS) == "503":
            raise NoResponder(f"nobody answers on {subject}")
        return message

    async def _denied(self, what: str, subject: str) -> bool:
        """Tell whether the broker complains of what was sent last; it does so before it answers the barrier."""
        await self._channel.connection.barrier()
        complaint = f'{_DENIED} for {what} to "{subject}"'.lower()
        return any(complaint in said.lower() for said in self.denials)
