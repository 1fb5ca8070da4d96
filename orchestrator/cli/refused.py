"""What was refused as `invalid`: each malformed command, as the log of events tells of it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import msgspec

from orchestrator.cli import render
from orchestrator.cli.past import past
from orchestrator.cli.session import Session
from orchestrator.feed import Wanted
from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.event import Event

KIND = "command.failed"
HEAD = ("TIME", "PROJECT", "SUBJECT", "REASON")


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """One message that was no valid command. project: `_` where none could be read. subject: as received. reason: what to mend."""

    time: str
    project: str
    node: str
    subject: str
    id: str
    reason: str

    def row(self) -> tuple[str, ...]:
        """Return its cells under `HEAD`."""
        return self.time, self.project, self.subject, self.reason

    def line(self) -> str:
        """Return it as one line."""
        return "  ".join(render.printable(cell) for cell in self.row())


def of(event: Event) -> Refused | None:
    """Return what a `command.failed` says if it says `invalid`."""
    try:
        result = codec.decode(codec.encode(event.data), Result)
    except Invalid:
        return None  # anybody may have put something else there
    if result.error is msgspec.UNSET or result.error.code != Invalid.code:
        return None
    subject = "" if result.subject is msgspec.UNSET else result.subject
    return Refused(
        time=event.time, project=event.project, node=event.node, subject=subject, id=result.id, reason=result.error.message
    )


async def last(session: Session, project: str | None, *, since: float | None, limit: int) -> list[Refused]:
    """Return the last `limit` that are kept, or as many as there are, the oldest first. Raises `BusError`."""
    kept: deque[Refused] = deque(maxlen=limit)
    async for event in past(session, Wanted(project=project, kinds=(KIND,)), since=since):
        refused = of(event)
        if refused is not None:
            kept.append(refused)
    return list(kept)


async def coming(session: Session, project: str | None, *, since: float | None) -> AsyncIterator[Refused]:
    """Yield each as it is told, from `since` on, else from now on; for ever."""
    async for event in session.client.events(every=project is None, project=project, since=since, kinds=(KIND,)):
        refused = of(event)
        if refused is not None:
            yield refused
