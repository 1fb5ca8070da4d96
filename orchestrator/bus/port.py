"""What the engines need of a message bus with logs; NATS with JetStream provides it, and so does memory.

A *log* is an append-only sequence of messages whose subjects it captures; it redelivers
nothing, readers keep their own place (PROTOCOL §3). Beside it there is plain publish and
subscribe, request and reply. Everything here is asyncio (anyio on its asyncio backend).

Connection. An adapter looks after its connection by itself, for as long as it is entered:
broker away for any length, refused credentials, expired tokens. `link` tells where it stands.
Subscriptions survive reconnects; what was published meanwhile is missed, so whoever must miss
nothing reads the log after each new `link.session`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

import msgspec

Headers = Mapping[str, str]
NO_HEADERS: Headers = {}

MAX_BATCH = 500
"""Messages that one atomic batch may have."""


class BusError(Exception):
    """Base of what a bus raises."""


class Unavailable(BusError):
    """The broker cannot be reached or used; the message is one plain sentence for people."""


class Uncertain(BusError):
    """No answer came: what was asked may have happened or not. Look before trying again."""


class Refused(BusError):
    """The broker said no, and nothing happened. `code` is JetStream's `err_code` (0: none given)."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Stale(Refused):
    """The expected last sequence is not the last one (10071)."""


class Full(Refused):
    """The log takes no more until it is trimmed (10077); nothing was stored."""


class NoResponder(BusError):
    """Nobody serves this subject now."""


class Message(msgspec.Struct, frozen=True):
    """A message as received. `sequence` and `time` are set when it comes from a log or its republish.

    sequence: place in the log, 0 if none. time: when the broker stored it, Unix seconds, 0.0 if unknown.
    """

    subject: str
    body: bytes
    headers: Headers = NO_HEADERS
    reply: str = ""
    sequence: int = 0
    time: float = 0.0


class Outgoing(msgspec.Struct, frozen=True):
    """A message to append."""

    subject: str
    body: bytes
    headers: Headers = NO_HEADERS


class Expect(msgspec.Struct, frozen=True):
    """A fence for an append: the last sequence under `subjects` must be `last` (0: none).

    `subjects` may have wildcards; empty, it is the message's own.
    """

    last: int
    subjects: str = ""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reader begins; nothing given: at the first message kept.

    sequence: at this one or the first after it. time: at the first stored since, Unix seconds.
    last_per_subject: the last message of each subject, then what comes. new: only what comes.
    """

    sequence: int | None = None
    time: float | None = None
    last_per_subject: bool = False
    new: bool = False


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A log to provision.

    first_sequence: given only at creation. max_age_s: 0 is no limit. discard_new: a full log refuses, else it forgets its oldest.
    republish: (subject filter, destination) as the broker's mapping has it. max_per_subject: messages kept a subject, 0: all.
    markers_s: seconds that a marker stands for a key that expired or was purged with a time to live, 0: none.
    """

    name: str
    subjects: tuple[str, ...]
    first_sequence: int = 0
    max_age_s: float = 0.0
    max_bytes: int = -1
    max_message: int = 1024 * 1024
    discard_new: bool = False
    duplicate_window_s: float = 120.0
    republish: tuple[str, str] | None = None
    max_per_subject: int = 0
    markers_s: float = 0.0
    max_consumers: int = 100_000
    atomic: bool = True


class Link(Protocol):
    """Where the connection stands."""

    @property
    def session(self) -> int:
        """Number of connections made so far, 0 before the first; rises with each reconnect."""

    @property
    def connected(self) -> bool:
        """Whether the connection stands now, as far as is known."""

    @property
    def since(self) -> float:
        """Monotonic second at which the present session began."""

    async def up(self, after: int = 0) -> int:
        """Wait until connected in a session later than `after`; return its number."""

    async def down(self, session: int) -> None:
        """Wait until `session` has ended."""


class Reader(Protocol):
    """A place in a log, moving forward. Acknowledges nothing; the broker forgets it soon after it is left."""

    @property
    def pending(self) -> int:
        """Messages that matched and lay ahead when the reader was made."""

    @property
    def broker_time(self) -> float:
        """The broker's clock when the reader was made, Unix seconds."""

    async def take(self, limit: int, *, wait_s: float | None = None) -> list[Message]:
        """Return the next messages in log order, at least one and at most `limit`, or none.

        With `wait_s` None nothing is waited for: an empty list says that nothing lies ahead; of a reader that has
        waited before, only that nothing has come so far. Else wait that long for the first. Raises `Uncertain` if the
        connection broke or the reader is gone; then make a new one at the sequence after the last taken.
        """


class Subscription(Protocol):
    """Live messages of a subject, in the order of arrival, bounded: what overflows is dropped and counted."""

    @property
    def dropped(self) -> int:
        """Messages dropped so far since the queue was full."""

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over messages until the subscription is left."""


Serve = Callable[[Message], Awaitable[tuple[bytes, Headers]]]
"""Answers one request with body and headers. Runs as a task of its own; what it raises is logged and answered as `internal`."""

Deliver = Callable[[Message], None]
"""Takes one message, at once and without waiting."""


class Bus(Protocol):
    """A connection to the broker. Enter it (`async with`) before use; entering does not wait for the broker."""

    @property
    def link(self) -> Link:
        """Where the connection stands."""

    @property
    def offset_s(self) -> float:
        """Broker's clock minus `time.time()` as last learnt from an answer; 0.0 before."""

    async def __aenter__(self) -> Self:
        """Begin to connect, and go on for as long as it is entered."""

    async def __aexit__(self, *exc: object) -> None:
        """Send what is waiting (within a second) and leave."""

    async def publish(self, subject: str, body: bytes, headers: Headers = NO_HEADERS) -> None:
        """Send to whoever listens now. Raises `Unavailable` when not connected."""

    async def request(self, subject: str, body: bytes, headers: Headers = NO_HEADERS, *, timeout_s: float) -> Message:
        """Ask and return the answer. Raises `NoResponder`, `Uncertain` (no answer in time), `Unavailable`."""

    def subscribe(self, subject: str, *, queue: str = "", limit: int = 65_536) -> AbstractAsyncContextManager[Subscription]:
        """Listen for as long as the context lasts. On entry the broker is known to have the subscription, if connected."""

    def listen(self, subject: str, deliver: Deliver) -> AbstractAsyncContextManager[None]:
        """Like `subscribe`, but hand each message straight to `deliver` on the loop, with no queue between."""

    def serve(
        self, service: str, subject: str, answer: Serve, *, version: str, metadata: Mapping[str, str], limit: int = 4096
    ) -> AbstractAsyncContextManager[None]:
        """Answer requests on `subject` (wildcard) in the queue group of `service`, and be found as a micro service (ADR-32).

        At most `limit` at a time, beyond that `busy` is answered. Messages whose reply is a `$JS.ACK` subject are ignored.
        """

    async def append(self, message: Outgoing, expect: Expect | None = None) -> int:
        """Store one message in the log that captures its subject; return its sequence.

        Raises `Stale` if `expect` does not hold, `Full`, `Refused`, `Uncertain` if no answer came, `Unavailable`
        if it was not sent. Header `Nats-Msg-Id` lets the log drop a duplicate within its window (the first's sequence is returned).
        """

    async def append_all(self, messages: Sequence[Outgoing], expect: Expect) -> int:
        """Store up to `MAX_BATCH` messages as one, all or none, in order; return the last one's sequence. Raises as `append`."""

    async def last(self, log: str, subjects: str) -> Message | None:
        """Return the last message under `subjects` (wildcards allowed), None if there is none. Raises `Uncertain`, `Unavailable`."""

    async def reader(self, log: str, name: str, subjects: str, start: Start) -> Reader:
        """Make a reader called `name`, instead of an earlier one of that name. Raises `Uncertain`, `Unavailable`, `Refused`."""

    async def purge(self, log: str, subjects: str, up_to: int) -> int:
        """Remove messages under `subjects` with a sequence ≤ `up_to`; return how many. Raises as `append`."""

    async def provision(self, logs: Sequence[LogConfig]) -> None:
        """Make each log, or update it in place; never drop one. Raises `Refused`, `Uncertain`, `Unavailable` (also: broker too old)."""


Clock = Callable[[], float]
"""Wall clock, Unix seconds."""
