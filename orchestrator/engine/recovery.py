"""What a new leader finds done already, before it routes anything (PROTOCOL §3, coordinator)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from orchestrator.bus.port import Bus, Message, Start
from orchestrator.engine.progress import Position, Progress
from orchestrator.protocol import codec
from orchestrator.protocol.command import HEADER_CMD, HEADER_ID
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Subjects

_PORTION = 256


class _Ended(msgspec.Struct, frozen=True):
    """The part of a terminal event's data that tells which command it ended."""

    cmd: int
    id: str


class _Told(msgspec.Struct, frozen=True):
    """The part of an event that is read here."""

    data: _Ended


async def recover(bus: Bus, subjects: Subjects, name: str, begun_at: Position) -> Progress:
    """Read what follows `begun_at` in the logs of orders and of coordinators' events. Raises `Uncertain`, `Unavailable`, `Refused`."""
    done: dict[int, str] = {}
    run, evt = begun_at.run, begun_at.evt
    async with aclosing(_ahead(bus, subjects.log_run, f"{name}-recover", subjects.runs(), run)) as orders:
        async for message in orders:
            run = message.sequence
            cmd = message.headers.get(HEADER_CMD, "")
            if cmd.isascii() and cmd.isdigit() and len(cmd) < 20:
                done[int(cmd)] = message.headers.get(HEADER_ID, "")
    async with aclosing(_ahead(bus, subjects.log_evt, f"{name}-recover", subjects.node_events(NONE), evt)) as events:
        async for message in events:
            evt = message.sequence
            ended = _ended(message)
            if ended is not None:
                done[ended.cmd] = ended.id
    return Progress(begun_at, {cmd: id for cmd, id in done.items() if cmd > begun_at.cmd}, run, evt)


async def _ahead(bus: Bus, log: str, name: str, subjects: str, after: int) -> AsyncGenerator[Message]:
    reader = await bus.reader(log, name, subjects, Start(sequence=after + 1))
    while messages := await reader.take(_PORTION):
        for message in messages:
            yield message


def _ended(message: Message) -> _Ended | None:
    try:
        return codec.decode(message.body, _Told).data
    except Invalid:
        return None  # an event of another kind, or of a command that came by api
