"""Events that are in the log already."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from orchestrator.bus.port import Start
from orchestrator.cli.session import Session
from orchestrator.feed import Wanted
from orchestrator.protocol import codec
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.event import Event

_TAKE = 256


async def past(session: Session, wanted: Wanted, *, since: float | None = None) -> AsyncIterator[Event]:
    """Yield the events stored until now that are wanted, in their order.

    since: from this Unix second on, else all that are kept. Raises `BusError`.
    """
    start = Start() if since is None else Start(time=since)
    name = session.reader or f"past-{os.urandom(8).hex()}"
    reader = await session.bus.reader(session.subjects.log_evt, name, wanted.subjects(session.subjects), start)
    left = reader.pending
    while left > 0 and (messages := await reader.take(min(left, _TAKE))):
        left -= len(messages)
        for message in messages:
            event = _read(message.body)
            if event is not None and wanted.admits(event):
                yield event


def _read(body: bytes) -> Event | None:
    try:
        return codec.decode(body, Event)
    except Invalid:
        return None  # anybody may have put something else there
