"""The events of a fleet, waited for by what they are and not by the time that they take."""

from __future__ import annotations

import anyio

from orchestrator.feed import Feed
from orchestrator.protocol.event import Event

EXPECT_S = 60.0
"""Seconds of the loop's time for which an event is waited for, unless the test says more; in virtual time they cost nothing."""


class Events:
    """All events of the log, from its first on, as values of `orchestrator.event`. `seen` are those so far, in the log's order."""

    def __init__(self, feed: Feed) -> None:
        """`feed` begins at the first event, and `follow` runs."""
        self.seen: list[Event] = []
        self._feed = feed
        self._given: set[str] = set()
        self._more = anyio.Event()

    async def follow(self) -> None:
        """Take in events for ever."""
        async for event in self._feed:
            self.seen.append(event)
            self._more.set()
            self._more = anyio.Event()

    async def expect(self, name: str, *, domain: str | None = None, node: str | None = None, within_s: float = EXPECT_S) -> Event:
        """Return the first event of this kind that no `expect` has returned before, as soon as it is in the log.

        name: `lifecycle.started`, or a beginning of it: `lifecycle`. domain: its name or UUID. node: that told it.
        Raises `AssertionError`, with what was told instead, if there is none within so many seconds.
        """
        looked = 0
        with anyio.move_on_after(within_s):
            while True:
                for event in self.seen[looked:]:
                    if event.id not in self._given and _is(event, name, domain, node):
                        self._given.add(event.id)
                        return event
                looked = len(self.seen)
                await self._more.wait()
        told = "".join(f"\n  {event.name} {event.domainname or event.subject} on {event.node}" for event in self.seen) or " nothing"
        raise AssertionError(f"no {name} of {domain or 'any domain'} within {within_s:g} s; told was:{told}")

    def names(self, domain: str | None = None) -> list[str]:
        """Return the names of the events so far, of all domains or of one, by name or UUID."""
        return [event.name for event in self.seen if _is(event, "", domain, None)]


def _is(event: Event, name: str, domain: str | None, node: str | None) -> bool:
    named = not name or event.name == name or event.name.startswith(f"{name}.")
    return named and domain in (None, event.domainname, event.subject) and node in (None, event.node)
