"""What is told of commands between their message and their end: that one waits, that one was begun (PROTOCOL §5).

Of most nothing is, since they end at once. One that has waited for a second is told to be accepted, and then to be started. So whoever
waits for it can tell a long queue from a lost message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import msgspec

from orchestrator.protocol.command import HEADER_TRACEPARENT, HEADER_TRACESTATE
from workers.engine.outbox import Draft, Outbox
from workers.journal.port import Entry

NOTICE_S = 1.0
"""Seconds after which who waits for a command hears of it; up to twice as many, since all are looked through at once."""


class Notice(msgspec.Struct):
    """What was told of a command so far. runs: it was begun, and has not ended."""

    runs: bool = False
    accepted: bool = False
    started: bool = False

    def due(self, entry: Entry, name: str | None = None) -> list[Draft]:
        """Return what is to be told and was not, and take it for told. `name` is the domain's."""
        due = [] if self.accepted else ["command.accepted"]
        due += ["command.started"] if self.runs and not self.started else []
        self.accepted, self.started = True, self.started or self.runs
        return [about(entry, event, {}, name=name) for event in due]


class Notices:
    """Looks through the commands of a node, once a second."""

    def __init__(self, outbox: Outbox, open: Callable[[], Iterable[tuple[Entry, Notice]]]) -> None:
        """`open` gives the commands that have not ended."""
        self._outbox = outbox
        self._open = open

    async def run(self) -> None:
        """Tell of those that wait, for ever. Raises `JournalFull`."""
        before: set[int] = set()
        while True:
            await anyio.sleep(NOTICE_S)
            found = list(self._open())
            due = [draft for entry, notice in found if entry.sequence in before for draft in notice.due(entry)]
            before = {entry.sequence for entry, _ in found}
            if due:
                await self._outbox.tell(due)


def about(entry: Entry, event: str, said: dict[str, Any], *, name: str | None = None) -> Draft:
    """Return an event of a command, `said` added to what all of them say. `name` is its domain's."""
    return Draft(
        name=event,
        project=entry.project,
        domain=entry.uuid,
        data={"id": entry.id, "verb": entry.verb, **said},
        domainname=name,
        commandid=entry.id,
        traceparent=entry.headers.get(HEADER_TRACEPARENT),
        tracestate=entry.headers.get(HEADER_TRACESTATE),
    )
