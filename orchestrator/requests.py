"""Requests that outlive what answers them, and what is read out of the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import msgspec

from orchestrator.bus.port import Bus, NoResponder, Unavailable, Uncertain
from orchestrator.protocol import codec
from orchestrator.protocol.command import Body
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import DeadlineExceeded, Failure, Internal, Invalid, NodeUnavailable, raised
from orchestrator.protocol.node import Node

QUERY_S = 10.0
"""Seconds that a question may take."""

PAUSE_S = 0.2
"""Seconds before what may be lost, or was not taken, is offered again."""

UNEXPLAINED = Failure(code="internal", message="the answer is no, and gives no reason")

_NOBODY = "no coordinator answers; is one running? 'virtbus coordinator' starts one"

T = TypeVar("T")


class Reply(msgspec.Struct, frozen=True):
    """The part that every answer has; a bare refusal has no id."""

    ok: bool
    id: str | None = None
    final: bool = True
    error: Failure = UNEXPLAINED
    result: dict[str, Any] = {}


class Page(msgspec.Struct, frozen=True):
    """A page of a list."""

    nodes: list[Node] = []
    domains: list[Observed] = []
    next: str | None = None


class Requests:
    """Requests, sent again with the same bytes whenever the one before may be lost.

    patience_s: how long one is offered while nobody takes it. repeat_s: after how long without an answer it is sent again,
    twice as long each time.
    """

    def __init__(self, bus: Bus, patience_s: float, repeat_s: float, monotonic: Callable[[], float]) -> None:
        self._bus = bus
        self._patience_s = patience_s
        self._repeat_s = repeat_s
        self._monotonic = monotonic

    async def question(self, subject: str, body: bytes = b"", *, silence: str = _NOBODY) -> dict[str, Any]:
        """Return the `result` of the answer; raises the error in it, and as `answer`."""
        reply = decoded(await self.answer(subject, body, QUERY_S, silence=silence), Reply)
        if not reply.ok:
            raise raised(reply.error)
        return reply.result

    async def pages(self, subject: str) -> list[Page]:
        """Return a list to its last page. Raises as `question`."""
        pages: list[Page] = []
        after = ""
        while True:
            page = fitting(await self.question(subject, encoded(Body(args={"after": after}))), Page)
            pages.append(page)
            if not page.next:
                return pages
            after = page.next

    async def answer(self, subject: str, body: bytes, timeout_s: float, *, silence: str = _NOBODY) -> bytes:
        """Return the answer's body.

        Nobody took it within the patience: `NodeUnavailable` with `silence` as the reason, or `Unavailable` if the broker is away.
        Somebody may have taken it, and no answer came in time: `DeadlineExceeded`, outcome unknown.
        """
        began = self._monotonic()
        repeat_s, taken = self._repeat_s, False
        while True:
            left = began + timeout_s - self._monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"no answer came within {timeout_s:g} s", outcome="unknown" if taken else "none")
            try:
                return await self._once(subject, body, min(left, repeat_s))
            except Uncertain:
                repeat_s, taken = repeat_s * 2, True
            except (NoResponder, Unavailable) as error:
                if not taken and self._monotonic() - began > self._patience_s:
                    raise _given_up(error, silence) from error
            await anyio.sleep(PAUSE_S)

    async def _once(self, subject: str, body: bytes, wait_s: float) -> bytes:
        """Request once; the bus raises `Uncertain` as soon as the session ends, since the answer cannot come any more."""
        if not self._bus.link.connected:
            raise Unavailable("the broker is away")
        return (await self._bus.request(subject, body, timeout_s=wait_s)).body


def _given_up(error: NoResponder | Unavailable, silence: str) -> Exception:
    return error if isinstance(error, Unavailable) else NodeUnavailable(silence)


def encoded(body: Body) -> bytes:
    """Return a command's body as it travels; raise `Invalid` if it is too large."""
    raw = codec.encode(body)
    if len(raw) > codec.MAX_COMMAND:
        raise Invalid(f"the command has {len(raw)} bytes; at most {codec.MAX_COMMAND} are accepted")
    return raw


def decoded(raw: bytes, kind: type[T]) -> T:
    """Return the value that an answer holds; raise `Internal`, outcome unknown, where it cannot be read."""
    try:
        return codec.decode(raw, kind)
    except Invalid as error:
        raise Internal(f"the answer cannot be read ({error.message})", outcome="unknown") from error


def fitting(value: Any, kind: type[T]) -> T:
    """Return a part of an answer as `kind`; raises as `decoded`."""
    try:
        return codec.convert(value, kind, field="result")
    except Invalid as error:
        raise Internal(f"the answer cannot be read ({error.message})", outcome="unknown") from error
