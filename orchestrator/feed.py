"""The event log, followed: one iterator that goes on through broken sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import msgspec

from orchestrator.bus.port import Bus, Message, Start, Unavailable, Uncertain
from orchestrator.event import UNOWNED, typed
from orchestrator.protocol import codec, token
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.event import Event
from orchestrator.protocol.subject import Subjects

_TAKE = 256
_WAIT_S = 10.0
_PAUSE_S = 0.2


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: all fields given must match. domain: UUID or name; kinds: event names, or their first tokens.

    Raises `Invalid` for kinds that a project never has, since nothing would ever come.
    """

    project: str | None = None
    node: str | None = None
    domain: str | None = None
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unowned = [kind for kind in self.kinds if kind.partition(".")[0] in UNOWNED]
        if self.project is not None and unowned:
            raise Invalid(f"kinds: {', '.join(unowned)} belongs to no project; follow every project to be told")

    def subjects(self, subjects: Subjects) -> str:
        """Return the narrowest subject filter that has them all; raise `Invalid` where a part is no token."""
        node = "*" if self.node is None else self.node if self.node == token.NONE else token.node(self.node)
        project = "*" if self.project is None else token.project(self.project)
        domain = self.domain.lower() if self.domain is not None and token.is_uuid(self.domain) else "*"
        return subjects.evt(node, project, domain, ">")

    def admits(self, event: Event) -> bool:
        """Tell whether an event that came under the subject filter is wanted."""
        named = self.domain is None or token.is_uuid(self.domain) or event.domainname == self.domain
        return named and (not self.kinds or any(event.name == kind or event.name.startswith(f"{kind}.") for kind in self.kinds))


class Feed:
    """Events in the order of the log, as values of `orchestrator.event`; iterate over it. It never ends by itself.

    sequence: place in the log of the event given last (0: none yet); a later feed goes on after it.
    skipped: messages under the filter that were no event.
    """

    def __init__(
        self, bus: Bus, subjects: Subjects, wanted: Wanted, *, name: str, since: float | None = None, after: int | None = None
    ) -> None:
        self.sequence = 0
        self.skipped = 0
        self._bus = bus
        self._log = subjects.log_evt
        self._filter = wanted.subjects(subjects)
        self._wanted = wanted
        self._name = name
        self._start: Start | None = None
        if after is not None:
            self._start = Start(sequence=after + 1)
        elif since is not None:
            self._start = Start(time=since)

    async def begin(self) -> None:
        """Fix where the feed begins: what is stored after this call is in it. Iterating does so too.

        Waits for the broker. Raises `orchestrator.bus.port.BusError` if the log does not exist or may not be read.
        """
        while self._start is None:
            session = await self._bus.link.up()
            try:
                last = await self._bus.last(self._log, self._filter)
            except (Uncertain, Unavailable):
                if self._holds(session):
                    raise
                await anyio.sleep(_PAUSE_S)
            else:
                # nothing kept under the filter: whatever comes is new
                self._start = Start() if last is None else Start(sequence=last.sequence + 1)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over events. Raises as `begin`, also where the first reader is not allowed; later ones are made until they are."""
        await self.begin()
        had_one = False
        while True:
            session = await self._bus.link.up()
            try:
                reader = await self._bus.reader(self._log, self._name, self._filter, self._start or Start())
                had_one = True
                while True:
                    for message in await reader.take(_TAKE, wait_s=_WAIT_S):
                        self._start = Start(sequence=message.sequence + 1)
                        event = self._read(message)
                        if event is not None:
                            self.sequence = message.sequence
                            yield event
            except (Uncertain, Unavailable):
                if not had_one and self._holds(session):
                    raise
                await anyio.sleep(_PAUSE_S)

    def _holds(self, session: int) -> bool:
        """Tell whether a session still stands, so that what failed in it failed for another reason."""
        return self._bus.link.connected and self._bus.link.session == session

    def _read(self, message: Message) -> Event | None:
        try:
            event = codec.decode(message.body, Event)
        except Invalid:
            self.skipped += 1
            return None
        return typed(event) if self._wanted.admits(event) else None
