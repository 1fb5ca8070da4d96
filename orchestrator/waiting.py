"""Waiting until a domain is in a state: events say when to look, and what is seen decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import get_args

import anyio

from orchestrator.bus.port import Bus, Message
from orchestrator.protocol import token
from orchestrator.protocol.domain import Observed, State
from orchestrator.protocol.error import DeadlineExceeded, Invalid, NotFound
from orchestrator.protocol.subject import Subjects

_GATHER_S = 0.01
_SOON_S = 0.02
_LATE_S = 2.0

States = State | Collection[State] | None
"""A state, several of which any will do, or None for a domain that is not there (any more)."""

Look = Callable[[], Awaitable[Observed]]
"""Returns what is seen of the domain now, or raises `NotFound`."""


def states(wanted: States) -> frozenset[State]:
    """Return the states that will do, empty for None; raise `Invalid` for what is no state, since no domain would ever be in it."""
    if wanted is None:
        return frozenset()
    several: Collection[State] = (wanted,) if isinstance(wanted, str) else wanted
    unknown = ", ".join(repr(one) for one in several if one not in get_args(State))
    if unknown or not several:
        raise Invalid(f"state: {unknown or 'nothing'} is none; there are {', '.join(get_args(State))}, and None for gone")
    return frozenset(several)


class Watch:
    """Looks at one domain, at once and then again after each of its events, until it is as wanted.

    An event is only a hint: the state may be told a little after it, and a hint may be lost with a session.
    So looks follow an event closely and get rarer, and never end.
    """

    def __init__(self, bus: Bus, subjects: Subjects, project: str, domain: str, look: Look) -> None:
        self._bus = bus
        self._subjects = subjects
        self._project = project
        self._domain = domain
        self._look = look
        self._uuid = domain.lower() if token.is_uuid(domain) else ""
        self._seen: Observed | None = None
        self._state = "not seen"
        self._hint = anyio.Event()

    async def until(self, wanted: frozenset[State], within_s: float | None) -> Observed | None:
        """Return the domain as soon as its state is wanted, None where none is and it is gone. Raises `DeadlineExceeded`."""
        with anyio.move_on_after(within_s):
            # who is content at once needs no subscription; the look that counts for all others comes after it
            if not await self._holds(wanted):
                await self._follow(wanted)
            return self._seen
        raise DeadlineExceeded(f"{self._domain} is {self._state}, not {' or '.join(sorted(wanted)) or 'gone'}, after {within_s or 0.0:g} s")

    async def _follow(self, wanted: frozenset[State]) -> None:
        # a name may be given to a domain that is yet to be made: then any of the project may be it
        subject = self._subjects.evt("*", self._project, self._uuid or "*", ">")
        async with self._bus.listen(subject, self._hear):
            pause = _SOON_S
            while not await self._holds(wanted):
                with anyio.move_on_after(pause):
                    await self._hint.wait()
                pause = min(pause * 2, _LATE_S)
                if self._hint.is_set():
                    await anyio.sleep(_GATHER_S)  # what tells much is not asked for each word
                    self._hint, pause = anyio.Event(), _SOON_S

    def _hear(self, message: Message) -> None:
        if not self._uuid or self._uuid == self._subjects.parse_event(message.subject).domain:
            self._hint.set()

    async def _holds(self, wanted: frozenset[State]) -> bool:
        try:
            self._seen = await self._look()
            self._uuid, self._state = self._seen.uuid, self._seen.state
        except NotFound:
            self._seen, self._state = None, "gone"
        return self._state in (wanted or ("gone",))
