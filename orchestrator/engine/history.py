"""Looking in the event log how a command ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import anyio
import msgspec

from orchestrator.bus.port import Bus, Message, Start
from orchestrator.control.custody import Ending
from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.error import Invalid, Outcome
from orchestrator.protocol.event import TERMINAL
from orchestrator.protocol.subject import ALL_COMMANDS, NONE, Subjects
from orchestrator.protocol.verb import VERBS

KEPT_S = 24 * 3600.0
"""Seconds for which the log of events answers for what has been (PROTOCOL §3)."""

_LOOKERS = 8
"""Look-ups at a time."""

_PORTION = 256

_MAKING = frozenset({"undefine", *(name for name, verb in VERBS.items() if verb.creates)})
"""Verbs after which a domain is there, or is not."""


class Terminal(msgspec.Struct, frozen=True):
    """A terminal event as found. result: the command's result as JSON. sequence: of the event in the log."""

    node: str
    id: str
    result: bytes
    sequence: int


class Found(msgspec.Struct, frozen=True):
    """What the log knows of a command and of its domain: how it ended, if it did, and every node that ever ran one there."""

    terminal: Terminal | None
    nodes: frozenset[str]


class _Told(msgspec.Struct, frozen=True):
    """The part of an event that tells how a command ended."""

    data: msgspec.Raw
    commandid: str | None = None


class _Settled(msgspec.Struct, frozen=True):
    """The data of `command.settled`."""

    outcome: Outcome


class History:
    """The events of commands, read domain by domain. Readers are named after `name`, a few in turn; `now` gives broker time."""

    def __init__(self, bus: Bus, subjects: Subjects, name: str, now: Callable[[], float]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._now = now
        self._names = [f"{name}-look-{number}" for number in range(_LOOKERS)]
        self._free = anyio.Semaphore(_LOOKERS)

    @property
    def oldest(self) -> float:
        """Broker time, Unix seconds, since when the log is complete."""
        return self._now() - KEPT_S

    async def terminals(self, node: str, project: str, uuid: str, start: Start) -> list[Terminal]:
        """Return the terminal events of a domain's commands on a node. Raises `Uncertain`, `Unavailable`."""
        found: list[Terminal] = []
        async with aclosing(self._read(node, project, uuid, start)) as messages:
            async for message in messages:
                terminal = self.terminal(message)
                if terminal is not None:
                    found.append(terminal)
        return found

    async def find(self, project: str, uuid: str, id: str) -> Found:
        """Look on all nodes for a command of a domain (`_`: of coordinators, where none is known). Raises `Uncertain`, `Unavailable`."""
        node = NONE if uuid == NONE else "*"
        ended = await self.terminals(node, project, uuid, Start(time=self.oldest))
        terminal = next((one for one in ended if one.id == id), None)
        return Found(terminal, frozenset(one.node for one in ended) - {NONE})

    async def ending(self, project: str, uuid: str, id: str) -> Ending | None:
        """Return how a command for a domain ended, and what was learnt of its effect later. Raises `Uncertain`, `Unavailable`."""
        ending: Ending | None = None
        async with aclosing(self._read("*", project, uuid, Start(time=self.oldest))) as messages:
            async for message in messages:
                ending = self._followed(ending, message, id)
        return ending

    def _followed(self, ending: Ending | None, message: Message, id: str) -> Ending | None:
        """Return what is known of a command's end after one more event of its domain."""
        terminal = self.terminal(message)
        result = None if terminal is None else _result(terminal.result)
        if ending is None:
            return None if terminal is None or result is None or terminal.id != id else Ending(result)
        if result is not None:
            undone = result.verb == "undefine" if result.ok and result.verb in _MAKING else ending.undone
            return msgspec.structs.replace(ending, undone=undone)
        settled = _settled(message, id) if message.subject.endswith(".command.settled") else None
        return ending if settled is None else msgspec.structs.replace(ending, settled=settled)

    async def _read(self, node: str, project: str, uuid: str, start: Start) -> AsyncGenerator[Message]:
        subjects = self._subjects.evt(node, project, uuid, ALL_COMMANDS)
        async with self._free:
            name = self._names.pop()
            try:
                reader = await self._bus.reader(self._subjects.log_evt, name, subjects, start)
                left = reader.pending
                while left > 0 and (messages := await reader.take(min(left, _PORTION))):
                    left -= len(messages)
                    for message in messages:
                        yield message
            finally:
                self._names.append(name)

    def terminal(self, message: Message) -> Terminal | None:
        """Return what a message of the log of events tells of the end of a command, None if it tells of none."""
        told = self._subjects.parse_event(message.subject)
        if told.event not in TERMINAL:
            return None
        event = _decoded(message, _Told)
        if event is None or event.commandid is None:
            return None
        return Terminal(told.node, event.commandid, bytes(event.data), message.sequence)


def _settled(message: Message, id: str) -> Outcome | None:
    event = _decoded(message, _Told)
    if event is None or event.commandid != id:
        return None
    try:
        return codec.decode(bytes(event.data), _Settled).outcome
    except Invalid:
        return None


def _result(raw: bytes) -> Result | None:
    try:
        return codec.decode(raw, Result)
    except Invalid:
        return None


def _decoded(message: Message, kind: type[_Told]) -> _Told | None:
    # Others may write into their own subjects what is no event of ours; it ends nothing.
    try:
        return codec.decode(message.body, kind)
    except Invalid:
        return None
