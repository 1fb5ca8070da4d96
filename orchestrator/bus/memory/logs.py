"""All logs of the broker in memory: which takes what, who reads them, and when they wake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import msgspec

from orchestrator.bus import header
from orchestrator.bus.memory.log import MemoryLog
from orchestrator.bus.memory.pattern import mapped, overlap
from orchestrator.bus.memory.place import Place
from orchestrator.bus.port import Clock, Expect, LogConfig, Message, Outgoing, Refused, Start, Unavailable

T = TypeVar("T")


class MemoryLogs:
    """Logs by name. `tell` sends a message to whoever listens."""

    def __init__(self, clock: Clock, tell: Callable[[Message], object]) -> None:
        self._clock = clock
        self._tell = tell
        self.witness: Callable[[Message], None] | None = None
        """Told of each message as it is stored, for simulations: readers come later, and miss what is purged."""
        self._logs: dict[str, MemoryLog] = {}
        self._places: dict[str, dict[str, Place]] = {}
        self._alarms: dict[str, tuple[float | None, asyncio.TimerHandle | None]] = {}

    def restart(self) -> None:
        """Forget what a broker may forget in a restart: readers, and which ids were stored."""
        self._places.clear()
        for log in self._logs.values():
            log.forget_ids()

    def offer(self, message: Outgoing) -> bytes | None:
        """Store a message that was simply published; return the acknowledgement, None where no log captures it."""
        log = self._capturing(message.subject)
        if log is None:
            return None
        answer: dict[str, Any] = {"stream": log.config.name}
        try:
            answer["seq"] = self._write(log, lambda now: log.append(message, None, now))
        except Refused as refusal:
            answer["error"] = {"err_code": refusal.code, "description": str(refusal)}
        return msgspec.json.encode(answer)

    def append(self, message: Outgoing, expect: Expect | None) -> int:
        """Store one message. Raises `Stale`, `Full`, `Refused`, `Unavailable` where no log captures it."""
        log = self._offered([message])
        return self._write(log, lambda now: log.append(message, expect, now))

    def append_all(self, messages: Sequence[Outgoing], expect: Expect) -> int:
        """Store all messages or none. Raises `Stale`, `Full`, `Refused`, `Unavailable` where no log captures them."""
        log = self._offered(messages)
        return self._write(log, lambda now: log.append_all(messages, expect, now))

    def last(self, name: str, subjects: str) -> Message | None:
        """Return the last message under `subjects` in a log. Raises `Unavailable` where there is no such log."""
        log = self._logs.get(name)
        if log is None:
            raise Unavailable(f"there is no log {name}")
        return self._write(log, lambda now: log.last(subjects, now))

    def purge(self, name: str, subjects: str, up_to: int) -> int:
        """Remove messages under `subjects` up to a sequence; return how many. Raises `Refused` where there is no such log."""
        log = self._log(name)
        return self._write(log, lambda now: log.purge(subjects, up_to, now))

    def place(self, name: str, reader: str, subjects: str, start: Start) -> Place:
        """Make a place in a log, instead of an earlier one of that name. Raises `Refused`."""
        log, now = self._log(name), self._clock()
        places = self._places.setdefault(name, {})
        for each in [each for each, place in places.items() if place.left(now) or each == reader]:
            places.pop(each).close()
        if 0 < log.config.max_consumers <= len(places):
            raise Refused("maximum consumers limit reached", 10026)
        self._write(log, log.expire)
        places[reader] = Place(log, subjects, start, self._clock)
        return places[reader]

    def provision(self, configs: Sequence[LogConfig]) -> None:
        """Make each log or update it. Raises `Refused` for a configuration that cannot be."""
        for config in configs:
            self._check_config(config)
            if config.name not in self._logs:
                self._logs[config.name] = MemoryLog(config, partial(self._stored, config.name))
            log = self._logs[config.name]
            log.update(config)
            self._write(log, log.expire)

    def _check_config(self, config: LogConfig) -> None:
        if 0 < config.max_age_s < config.duplicate_window_s:
            raise Refused("duplicates window can not be larger then max age", 10052)
        for name, log in self._logs.items():
            if name != config.name and any(overlap(ours, theirs) for ours in config.subjects for theirs in log.config.subjects):
                raise Refused("subjects overlap with an existing stream", 10065)

    def _log(self, name: str) -> MemoryLog:
        if name not in self._logs:
            raise Refused("stream not found", 10059)
        return self._logs[name]

    def _offered(self, messages: Sequence[Outgoing]) -> MemoryLog:
        """Let plain listeners hear what is offered, as the broker does whether or not it is stored; return the log it is for."""
        for message in messages:
            self._tell(Message(message.subject, message.body, message.headers))
        log = self._capturing(messages[0].subject)
        if log is None:
            raise Unavailable(f"no log captures {messages[0].subject}")
        return log

    def _capturing(self, subject: str) -> MemoryLog | None:
        return next((log for log in self._logs.values() if log.captures(subject)), None)

    def _write(self, log: MemoryLog, act: Callable[[float], T]) -> T:
        """Do something with a log, and see to it that it wakes when its next message expires."""
        try:
            return act(self._clock())
        finally:
            self._set_alarm(log)

    def _stored(self, name: str, message: Message) -> None:
        if self.witness is not None:
            self.witness(message)
        config = self._logs[name].config
        if config.republish is not None:
            subject = mapped(message.subject, *config.republish)
            if subject is not None:
                self._tell(_pushed(name, subject, message))
        for place in self._places.get(name, {}).values():
            place.stored(message)

    def _set_alarm(self, log: MemoryLog) -> None:
        name, end = log.config.name, log.next_end
        set_for, handle = self._alarms.get(name, (None, None))
        if end == set_for:
            return
        if handle is not None:
            handle.cancel()
        self._alarms[name] = end, None if end is None else self._alarm(log, end)

    def _alarm(self, log: MemoryLog, end: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(end - self._clock(), 0.0), self._ring, log)

    def _ring(self, log: MemoryLog) -> None:
        del self._alarms[log.config.name]
        self._write(log, log.expire)


def _pushed(log: str, subject: str, stored: Message) -> Message:
    """Return a stored message as the broker republishes it."""
    headers = {
        **stored.headers,
        header.STREAM: log,
        header.SUBJECT: stored.subject,
        header.SEQUENCE: str(stored.sequence),
        header.TIME: datetime.fromtimestamp(stored.time, UTC).isoformat().replace("+00:00", "Z"),
    }
    return Message(subject, stored.body, headers, sequence=stored.sequence, time=stored.time)
