"""What the coordinator itself ends: commands that it never tried to route (PROTOCOL §4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from orchestrator.bus.port import Bus, Unavailable
from orchestrator.control.intake import Heading, Malformed
from orchestrator.engine.announcer import Announcer
from orchestrator.engine.recent import Recent
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.cancel import finding
from orchestrator.protocol.command import DomainRef, Result
from orchestrator.protocol.error import WireError
from orchestrator.protocol.subject import NONE, Subjects

_log = get_logger()


class Ender:
    """Gives a command its one terminal event, then its result on `res`. `now` gives broker time."""

    def __init__(self, bus: Bus, subjects: Subjects, announcer: Announcer, recent: Recent, now: Callable[[], float]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._announcer = announcer
        self._recent = recent
        self._now = now

    async def fence(self, heading: Heading) -> int | None:
        """Return what `fail` and `succeed` shall be fenced by, taken before it was looked whether the command ended elsewhere.

        None for an id that nobody else can have. Raises `Uncertain`, `Unavailable`.
        """
        return await self._announcer.last(heading.project, heading.uuid) if heading.given else None

    async def fail(self, heading: Heading, error: WireError, *, cmd: int = 0, fence: int | None = None) -> bytes:
        """End a command as failed or expired and return its result. cmd: its sequence in `VIRT_CMD`, if it came from there.

        Raises `Stale` if another coordinator has ended a command of its domain since `fence`.
        """
        return await self._end(heading, cmd, fence, ok=False, error=error.failure(), result=finding(error))

    async def succeed(
        self, heading: Heading, *, changed: bool, found: dict[str, Any] | None = None, cmd: int = 0, fence: int | None = None
    ) -> bytes:
        """End a command as succeeded and return its result. changed: whether what it is for held not before. Raises as `fail`."""
        return await self._end(heading, cmd, fence, ok=True, changed=changed, result=msgspec.UNSET if found is None else found)

    async def repeat(self, heading: Heading, result: bytes) -> None:
        """Send the outcome of a command ended here again, for whoever waits for the repeat."""
        await self._answer(heading.project, heading.id, result)

    async def _end(self, heading: Heading, cmd: int, fence: int | None, **how: Any) -> bytes:
        known = heading.uuid != NONE
        result = Result(
            id=heading.id,
            verb=heading.verb,
            node=NONE,
            project=heading.project,
            domain=DomainRef(uuid=heading.uuid, name=heading.name) if known else None,
            duration_ms=round(max(self._now() - heading.received, 0.0) * 1000, 3),
            cmd=cmd or msgspec.UNSET,
            subject=heading.subject if isinstance(heading, Malformed) or not known else msgspec.UNSET,
            **how,
        )
        await self._announcer.tell(
            result.event,
            msgspec.to_builtins(result),
            project=heading.project,
            domain=heading.uuid,
            domainname=heading.name,
            commandid=heading.id,
            trace=heading.trace,
            fence=fence,
        )
        body = codec.encode(result)
        self._recent.learn(NONE, heading.project, heading.id, body)
        await self._answer(heading.project, heading.id, body)
        return body

    async def _answer(self, project: str, id: str, body: bytes) -> None:
        try:
            await self._bus.publish(self._subjects.res(NONE, project, id), body)
        except Unavailable as error:
            # The event is stored; who misses the result finds it there.
            _log.info("result.not_sent", project=project, id=id, reason=str(error))
