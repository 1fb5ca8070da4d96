"""The coordinator's own events, on their way into the log: one at a time, each once, however the connection fares."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from orchestrator.bus.port import NO_HEADERS, Bus, BusError, Outgoing, Refused, Start
from orchestrator.log import get_logger
from orchestrator.protocol import codec, token
from orchestrator.protocol.command import HEADER_TRACEPARENT, HEADER_TRACESTATE
from orchestrator.protocol.event import CONTENT_TYPE, coordinator_source, event
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.subject import NONE, Subjects

_REMEMBERED = 65_536
"""Domains whose last event is known; of one forgotten, `previous` begins anew."""

_PAUSE_S = 0.2
_LONGEST_S = 5.0

_log = get_logger()


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
    ) -> int:
        """Store an event and return its sequence in the log, however long that takes.

        name: `<event>[.<detail>]`. subject: whom it is about, else the domain. trace: `traceparent` and `tracestate`.
        """
        async with self._turn:
            self._sequence += 1
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
                previous=self._before(project, domain),
                data=data,
                domainname=domainname,
                commandid=commandid,
                traceparent=trace.get(HEADER_TRACEPARENT),
                tracestate=trace.get(HEADER_TRACESTATE),
            )
            headers = {"Content-Type": CONTENT_TYPE, "Nats-Msg-Id": told.id}
            stored = await self._store(Outgoing(self._subjects.evt(NONE, project, domain, name), codec.encode(told), headers))
            self.stored = max(self.stored, stored)
            return stored

    def _before(self, project: str, domain: str) -> int:
        before = self._previous.pop((project, domain), 0)
        self._previous[project, domain] = self._sequence
        if len(self._previous) > _REMEMBERED:
            self._previous.popitem(last=False)
        return before

    async def _store(self, message: Outgoing) -> int:
        """Append until it is stored. After an attempt of unknown outcome, look first: the log forgets ids when the broker restarts."""
        pause, attempted = _PAUSE_S, False
        while True:
            try:
                found = await self._stored(message) if attempted else 0
                return found or await self._bus.append(message)
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
