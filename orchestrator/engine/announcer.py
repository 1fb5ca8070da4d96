"""The coordinator's own events, on their way into the log: one at a time, each once, however the connection fares."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio

from orchestrator.bus.port import NO_HEADERS, Bus, BusError, Expect, Outgoing, Refused, Stale, Start
from orchestrator.log import get_logger
from orchestrator.protocol import codec, token
from orchestrator.protocol.command import HEADER_TRACEPARENT, HEADER_TRACESTATE
from orchestrator.protocol.event import CONTENT_TYPE, coordinator_source, event
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.subject import ALL_COMMANDS, NONE, Subjects

_REMEMBERED = 65_536
"""Domains whose last event is known; of one forgotten, `previous` begins anew."""

_PAUSE_S = 0.2
_LONGEST_S = 5.0

_log = get_logger()

T = TypeVar("T")


class Announcer:
    """Stores events under node token `_`. One epoch a process; sequence and `previous` count within it."""

    def __init__(
        self, bus: Bus, subjects: Subjects, name: str, *, clock: Callable[[], float], randomness: Callable[[int], bytes]
    ) -> None:
        self.epoch = token.ulid(int(clock() * 1000), randomness(10))
        self.stored = 0
        """Sequence in the log of the last event stored."""
        self._bus = bus
        self._subjects = subjects
        self._reader = f"{name}-announced"
        self._source = coordinator_source(subjects.prefix, name)
        self._clock = clock
        self._sequence = 0
        self._previous: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._ours: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._turn = anyio.Lock()

    async def tell(
        self,
        name: str,
        data: dict[str, Any],
        *,
        project: str = NONE,
        domain: str = NONE,
        subject: str | None = None,
        domainname: str | None = None,
        commandid: str | None = None,
        trace: Mapping[str, str] = NO_HEADERS,
        fence: int | None = None,
    ) -> int:
        """Store an event and return its sequence in the log, however long that takes.

        name: `<event>[.<detail>]`. subject: whom it is about, else the domain. trace: `traceparent` and `tracestate`.
        fence: what `last` said of its domain. Raises `Stale`, nothing stored, if another coordinator has ended a command there since.
        """
        async with self._turn:
            self._sequence += 1  # also if this is cancelled: it may be stored then, and the log would take the next of its id for a copy
            told = event(
                prefix=self._subjects.prefix,
                name=name,
                source=self._source,
                node=NONE,
                project=project,
                subject=subject or domain,
                time=timestamp(self._clock()),
                epoch=self.epoch,
                sequence=self._sequence,
                previous=self._previous.get((project, domain), 0),
                data=data,
                domainname=domainname,
                commandid=commandid,
                traceparent=trace.get(HEADER_TRACEPARENT),
                tracestate=trace.get(HEADER_TRACESTATE),
            )
            headers = {"Content-Type": CONTENT_TYPE, "Nats-Msg-Id": told.id}
            message = Outgoing(self._subjects.evt(NONE, project, domain, name), codec.encode(told), headers)
            try:
                stored = await (self._store(message) if fence is None else self._fenced(message, (project, domain), fence))
            except Stale:
                self._sequence -= 1
                raise
            _remember(self._previous, (project, domain), self._sequence)
            self.stored = max(self.stored, stored)
            return stored

    async def last(self, project: str, domain: str) -> int:
        """Return the sequence of the last command that a coordinator ended for a domain, 0 if none. Raises `Uncertain`, `Unavailable`."""
        last = await self._bus.last(self._subjects.log_evt, self._ends(project, domain))
        return 0 if last is None else last.sequence

    def _ends(self, project: str, domain: str) -> str:
        return self._subjects.evt(NONE, project, domain, ALL_COMMANDS)

    async def _fenced(self, message: Outgoing, key: tuple[str, str], fence: int) -> int:
        """Store behind the last event of its domain: that of `fence`, or one of ours if since then there were no others."""
        since, last = self._ours.get(key, (fence, fence))
        expected = max(last, fence) if since <= fence else fence
        try:
            stored = await self._store(message, Expect(expected, self._ends(*key)))
        except Stale:
            self._ours.pop(key, None)
            raise
        _remember(self._ours, key, (since if expected == last else expected, stored))
        return stored

    async def _store(self, message: Outgoing, expect: Expect | None = None) -> int:
        """Append until it is stored. After an attempt of unknown outcome, look first: the log forgets ids when the broker restarts.

        Raises `Stale` where it is certain that `expect` did not hold for any attempt.
        """
        pause, attempted, stale = _PAUSE_S, False, False
        while True:
            try:
                found = await self._stored(message) if attempted else 0
                return found or await self._bus.append(message, expect)
            except Stale:
                if stale or not attempted:
                    raise
                stale = True  # what came between may be an earlier attempt of our own: look once more
                continue
            except BusError as error:
                attempted = attempted or not isinstance(error, Refused)
                _log.info("announcer.again", subject=message.subject, reason=str(error) or type(error).__name__)
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_S)
            await self._bus.link.up()

    async def _stored(self, message: Outgoing) -> int:
        """Return the sequence under which the message is in the log, 0 if it is not."""
        start = Start(sequence=self.stored + 1)
        reader = await self._bus.reader(self._subjects.log_evt, self._reader, message.subject, start)
        left = reader.pending
        while left > 0 and (found := await reader.take(min(left, 256))):
            left -= len(found)
            for each in found:
                if each.headers.get("Nats-Msg-Id") == message.headers["Nats-Msg-Id"]:
                    return each.sequence
        return 0


def _remember(record: OrderedDict[tuple[str, str], T], key: tuple[str, str], value: T) -> None:
    record.pop(key, None)
    record[key] = value
    if len(record) > _REMEMBERED:
        record.popitem(last=False)
