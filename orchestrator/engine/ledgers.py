"""Asking nodes what their ledgers say of a command."""

from __future__ import annotations

import anyio
import msgspec

from orchestrator.bus.port import Bus, BusError
from orchestrator.engine.history import Terminal
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.pace import Pace
from orchestrator.protocol import codec
from orchestrator.protocol.command import Body
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Subjects

_AT_ONCE = 64
"""Questions under way at a time."""


class _Entry(msgspec.Struct, frozen=True):
    """The part of a ledger's entry that is read here; `result` is null until the command has ended."""

    node: str
    result: msgspec.Raw = msgspec.Raw(b"null")


class _Record(msgspec.Struct, frozen=True):
    """The result of `ask … command`."""

    command: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True):
    """An answer to `ask … command`."""

    ok: bool
    result: _Record | None = None


class Ledgers:
    """The ledgers of all living nodes."""

    def __init__(self, bus: Bus, subjects: Subjects, mirror: Mirror, pace: Pace) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._ask_s = min(pace.ask, 2.0)
        self._free = anyio.Semaphore(_AT_ONCE)

    async def ask(self, node: str, project: str, domain: str, id: str) -> msgspec.Raw | None:
        """Return a node's record of a command, None if it has none or does not answer."""
        try:
            return await self._asked(node, project, domain, id)
        except (BusError, Invalid):
            return None

    async def ask_all(self, project: str, id: str) -> msgspec.Raw | None:
        """Return the first record of a command that a living node gives, None if none has one."""
        record, _ = await self._all(project, id)
        return record

    async def _asked(self, node: str, project: str, domain: str, id: str) -> msgspec.Raw | None:
        body = codec.encode(Body(args={"id": id}))
        async with self._free:
            answer = await self._bus.request(self._subjects.ask(node, project, domain, "command"), body, timeout_s=self._ask_s)
        read = codec.decode(answer.body, _Answer)
        return None if read.result is None else read.result.command

    async def _all(self, project: str, id: str) -> tuple[msgspec.Raw | None, set[str]]:
        """Return the first record that a living node gives, and the nodes that have not said whether they have one."""
        records: list[msgspec.Raw] = []
        silent = set(self._mirror.nodes.rows) - set(self._mirror.leases.rows)

        async def ask(node: str) -> None:
            try:
                record = await self._asked(node, project, NONE, id)
            except (BusError, Invalid):
                silent.add(node)
                return
            if record is not None:
                records.append(record)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for node in list(self._mirror.leases.rows):
                tasks.start_soon(ask, node)
        return (records[0] if records else None), silent

    async def ended(self, project: str, id: str) -> tuple[Terminal | None, set[str]]:
        """Return how a command ended, as a living node tells it, None if none knows or it has not; and the nodes that did not answer."""
        record, silent = await self._all(project, id)
        try:
            entry = None if record is None else codec.decode(bytes(record), _Entry)
        except Invalid:
            return None, silent
        if entry is None or bytes(entry.result) == b"null":
            return None, silent
        return Terminal(entry.node, id, bytes(entry.result), 0), silent
