"""Looking for a command of which this coordinator knows nothing: in ledgers and logs, wherever it may have got to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import msgspec

from orchestrator.bus.port import Bus, Message, Start
from orchestrator.control.trace import Trace, domain_of
from orchestrator.engine.history import History
from orchestrator.engine.ledgers import Ledgers
from orchestrator.protocol import codec
from orchestrator.protocol.command import id_of
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Subjects

_PORTION = 256


class _Entry(msgspec.Struct, frozen=True):
    """The part of a ledger's entry that is read here."""

    node: str
    subject: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")


class Search:
    """Reads one log at a time, under `name`. All methods raise `Uncertain` and `Unavailable`."""

    def __init__(self, bus: Bus, subjects: Subjects, ledgers: Ledgers, history: History, name: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self._ledgers = ledgers
        self._history = history
        self._name = name
        self._turn = anyio.Lock()

    async def find(self, project: str, id: str, uuid: str) -> Trace | None:
        """Return the trace of a command, None if no living node, no log of a node and no event of the last day knows it.

        uuid: of its domain, `_` if that is not known; then a node's events tell only of what still lies in its log.
        """
        found = await self._in_ledgers(project, id)
        if found is not None:
            return found
        coming = await self.stored(project, id)
        return await self._told(project, id, uuid if coming is None else coming.uuid) or coming

    async def comes(self, project: str, id: str) -> bool:
        """Tell whether a command lies in the log of those that are yet to be routed."""
        return await self._in(self._subjects.log_cmd, self._subjects.cmd(project, "*", "*"), id, "m-cmd-") is not None

    async def stored(self, project: str, id: str, uuid: str = NONE) -> Trace | None:
        """Return the trace of a command that lies in the log of a node, None if none does. uuid: of its domain, `_` if not known."""
        subjects = self._subjects.run("*", project, "*" if uuid == NONE else uuid, "*")
        message = await self._in(self._subjects.log_run, subjects, id, "m-run-")
        if message is None:
            return None
        routed = self._subjects.parse_routed(message.subject)
        return Trace(node=routed.node, uuid=routed.domain.lower())

    async def _in_ledgers(self, project: str, id: str) -> Trace | None:
        record = await self._ledgers.ask_all(project, id)
        try:
            entry = None if record is None else codec.decode(bytes(record), _Entry)
            if entry is None:
                return None
            result = None if bytes(entry.result) == b"null" else bytes(entry.result)
            uuid = self._subjects.parse_routed(entry.subject).domain.lower() if entry.subject else domain_of(result)
        except Invalid:
            return None
        return Trace(node=entry.node, uuid=uuid, result=result)

    async def _told(self, project: str, id: str, uuid: str) -> Trace | None:
        places = [(NONE, "*")] if uuid == NONE else [("*", uuid), (NONE, "*")]
        for node, domain in places:
            for terminal in await self._history.terminals(node, project, domain, Start(time=self._history.oldest)):
                if terminal.id == id:
                    return Trace(uuid=domain_of(terminal.result), result=terminal.result)
        return None

    async def _in(self, log: str, subjects: str, id: str, own: str) -> Message | None:
        """Return the first message of a log that is a command under `id`; ids that begin with `own` tell their place."""
        place = id.removeprefix(own)
        numbered = place != id and place.isascii() and place.isdigit()
        start = Start(sequence=int(place)) if numbered else Start()
        async with self._turn, aclosing(self._read(log, subjects, start)) as messages:
            async for message in messages:
                if (id_of(message.body, message.headers) or f"{own}{message.sequence}") == id:
                    return message
                if numbered:
                    return None
        return None

    async def _read(self, log: str, subjects: str, start: Start) -> AsyncGenerator[Message]:
        reader = await self._bus.reader(log, self._name, subjects, start)
        left = reader.pending
        while left > 0 and (messages := await reader.take(min(left, _PORTION))):
            left -= len(messages)
            for message in messages:
                yield message
