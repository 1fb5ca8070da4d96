"""What coordinators ended, this one and all others: what was ended here must never be routed there, whoever is asked again.

A node's ledger knows what that node ended. Of what no node ever got only the log of events tells, so it is followed.
"""

from __future__ import annotations

import anyio
from anyio.abc import TaskStatus

from orchestrator.bus.port import Bus, BusError, Message, Reader, Start
from orchestrator.engine.history import History
from orchestrator.engine.pace import Pace
from orchestrator.engine.recent import Recent
from orchestrator.log import get_logger
from orchestrator.protocol.subject import ALL_COMMANDS, NONE, Subjects

_PORTION = 256
_WAIT_S = 5.0

_log = get_logger()


class Verdicts:
    """Feeds `recent` from the log of events. Run it; `name` is that of its reader."""

    def __init__(self, bus: Bus, subjects: Subjects, history: History, recent: Recent, *, name: str, pace: Pace) -> None:
        self._bus = bus
        self._subjects = subjects
        self._history = history
        self._recent = recent
        self._name = name
        self._pace = pace
        self._start = Start()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow for ever; started once what the log held was read."""
        self._start = Start(time=self._history.oldest)
        told = False
        while True:
            await self._bus.link.up()
            try:
                reader = await self._reader()
                self._learn(await self._ahead(reader))
                if not told:
                    task_status.started()
                    told = True
                while True:
                    self._learn(await reader.take(_PORTION, wait_s=_WAIT_S))
            except BusError as error:
                _log.info("verdicts.again", reason=str(error) or type(error).__name__)
            await anyio.sleep(self._pace.retry)

    async def _reader(self) -> Reader:
        filtered = self._subjects.evt(NONE, "*", "*", ALL_COMMANDS)
        return await self._bus.reader(self._subjects.log_evt, self._name, filtered, self._start)

    async def _ahead(self, reader: Reader) -> list[Message]:
        """Return what the log held when the reader was made."""
        found: list[Message] = []
        while len(found) < reader.pending and (messages := await reader.take(min(reader.pending - len(found), _PORTION))):
            found += messages
        return found

    def _learn(self, messages: list[Message]) -> None:
        for message in messages:
            self._start = Start(sequence=message.sequence + 1)
            terminal = self._history.terminal(message)
            if terminal is not None:
                self._recent.learn(NONE, self._subjects.parse_event(message.subject).project, terminal.id, terminal.result)
