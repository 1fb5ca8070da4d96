"""What the channel needs of one session with a broker, whoever looks after the connection under it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from nats.aio.subscription import Subscription

from orchestrator.bus.port import Deliver, Headers

OnError = Callable[[Exception], Awaitable[None]]
"""Takes what the broker has to say of a connection."""


class Session(Protocol):
    """One session with a broker, from `open` until it is `over`. It does not come back; the next one is another."""

    @property
    def version(self) -> str:
        """The broker's version, as it gives it itself."""

    @property
    def cause(self) -> Exception | None:
        """Why it ended, as far as is known."""

    async def open(self) -> None:
        """Begin. Raises nats-py's error, `OSError`, `TimeoutError`, `ValueError` or `Unavailable` where that fails."""

    async def over(self) -> None:
        """Wait until it has ended."""

    async def send(self, subject: str, body: bytes, reply: str, headers: Headers) -> None:
        """Publish; raise `Unavailable` where the session has ended and `Refused` for what the broker would not take."""

    async def tap(self, subject: str, queue: str, deliver: Deliver) -> Subscription:
        """Have each message of `subject` handed to `deliver`; raise nats-py's `ConnectionClosedError` where the session has ended."""

    async def untap(self, subscription: Subscription) -> None:
        """Undo `tap`; does nothing where the session has ended."""

    async def barrier(self) -> bool:
        """Wait until the broker has taken in all that was sent so far; return False if the session ended before."""

    async def shut(self) -> None:
        """Leave nothing of it behind, whatever state it is in."""


Dial = Callable[[OnError], Session]
"""Gives a session that is yet to be opened."""
