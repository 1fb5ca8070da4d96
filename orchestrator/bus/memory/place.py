"""A reader as the broker knows it: a name, a filter, and perhaps somebody who waits."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.bus.memory.log import MemoryLog
from orchestrator.bus.memory.pattern import takes
from orchestrator.bus.memory.wire import Answer
from orchestrator.bus.port import Clock, Message, Start, Uncertain

_IDLE_S = 30.0
"""Seconds after which the broker forgets a reader from whom nothing is heard."""


class Place:
    """A place in one log, moving forward."""

    def __init__(self, log: MemoryLog, subjects: str, start: Start, clock: Clock) -> None:
        self._log = log
        self._subjects = subjects
        self._clock = clock
        self._listed = log.lasts(subjects) if start.last_per_subject else []
        self._next = _first(log, start)
        self._heard = clock()
        self._open = True
        self._waiting: tuple[int, Answer[list[Message]]] | None = None
        self.time = clock()
        self.pending = len(self._listed) or log.count(self._next, subjects)

    def left(self, now: float) -> bool:
        """Tell whether it is closed, or has not been used for so long that it is forgotten."""
        return not self._open or self._heard + _IDLE_S < now

    def close(self) -> None:
        """End it; who waits is told."""
        self._open = False
        if self._waiting is not None:
            self._waiting[1].fail(Uncertain("the reader is gone: another of its name was made"))
            self._waiting = None

    def pull(self, limit: int, wait_s: float, answer: Answer[list[Message]]) -> None:
        """Answer with what lies ahead, or as soon as something does, if `wait_s` is above 0."""
        if self.left(self._clock()):
            answer.fail(Uncertain("the reader is gone: make a new one after the last message taken"))
            return
        self._heard = self._clock() + wait_s
        found = self._read(limit)
        if found or not wait_s:
            self._waiting = None
            answer.give(found)
        else:
            self._waiting = limit, answer

    def passed(self, messages: Sequence[Message]) -> None:
        """Move on: these were taken."""
        for message in messages:
            self._next = max(self._next, message.sequence + 1)
        self._listed = [sequence for sequence in self._listed if sequence > messages[-1].sequence]

    def stored(self, message: Message) -> None:
        """Take note that the log has a new message."""
        if self._waiting is not None and takes(self._subjects, message.subject):
            limit, answer = self._waiting
            self._waiting = None
            answer.give(self._read(limit))

    def _read(self, limit: int) -> list[Message]:
        now = self._clock()
        self._log.expire(now)
        listed = [message for sequence in self._listed if (message := self._log.at(sequence)) is not None][:limit]
        return listed + self._log.read(self._next, self._subjects, limit - len(listed), now)


def _first(log: MemoryLog, start: Start) -> int:
    if start.new or start.last_per_subject:
        return log.last_sequence + 1
    if start.time is not None:
        return log.since(start.time)
    return start.sequence or 0
