"""What a worker remembers through a crash: command ledger, event outbox, cursor, epochs.

Changes are values; `commit` writes those given as one transaction, and those of all callers that wait at the same
moment together (group commit), in the order of the calls. What a commit confirmed survives kill -9 of this process;
with `durable` also the loss of power. A file lock keeps a second worker out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from orchestrator.protocol.domain import Observed

Phase = Literal["received", "begun", "ended", "stored"]


class JournalError(Exception):
    """The journal cannot be used; the message is one plain sentence for people."""


class Locked(JournalError):
    """Another process holds the journal."""


class Damaged(JournalError):
    """What is in the file cannot be read; the message names the file and the way out."""


class JournalFull(JournalError):
    """The disk is full or failed; nothing of the commit was written."""


class Position(msgspec.Struct, frozen=True, order=True):
    """An event's place among all of a worker's events: epochs are ULIDs, so positions compare in time."""

    epoch: str
    sequence: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A command in the ledger, keyed by project and id.

    sequence: its first copy's place in `VIRT_RUN`. uuid: `_` where the command was malformed. deadline: broker time, Unix seconds.
    body, headers: as received. phase `ended`: result and terminal event are fixed; `stored`: that event is in the log.
    """

    project: str
    id: str
    sequence: int
    subject: str
    verb: str
    uuid: str
    digest: str
    body: bytes
    headers: Mapping[str, str]
    deadline: float
    fence: int = 0
    phase: Phase = "received"
    result: bytes = b""
    event: Position | None = None
    ended: float = 0.0


class OutboxEvent(msgspec.Struct, frozen=True):
    """An event that waits for the log: body is the encoded CloudEvent."""

    position: Position
    subject: str
    body: bytes


class Received(msgspec.Struct, frozen=True):
    """A command enters the ledger, and its sequence is known."""

    entry: Entry


class Repeated(msgspec.Struct, frozen=True):
    """A further copy of a known command: its sequence is known, nothing else happens."""

    sequence: int


class Begun(msgspec.Struct, frozen=True):
    """From here on the command may have had an effect."""

    project: str
    id: str


class Told(msgspec.Struct, frozen=True):
    """Events enter the outbox, with what the domains look like after them (None: gone), keyed by UUID."""

    events: tuple[OutboxEvent, ...]
    domains: Mapping[str, Observed | None] = {}


class Ended(msgspec.Struct, frozen=True):
    """A command's outcome is fixed; its terminal event, at `event`, is told in the same commit."""

    project: str
    id: str
    result: bytes
    event: Position
    at: float


class Stored(msgspec.Struct, frozen=True):
    """All events up to here are in the log: they leave the outbox, and commands that ended with them are `stored`."""

    up_to: Position


class Advanced(msgspec.Struct, frozen=True):
    """Every command for this node up to `cursor` is in the ledger."""

    cursor: int


class EpochBegun(msgspec.Struct, frozen=True):
    """A new epoch, before anything of it leaves the process."""

    epoch: str


class Forgotten(msgspec.Struct, frozen=True):
    """Commands stored and ended before `ended_before` (Unix seconds) and not above the cursor leave the ledger.

    So do fences of domains that have been gone for as long (`workers.journal.fences`).
    """

    ended_before: float


class Reset(msgspec.Struct, frozen=True):
    """The broker lost data: the cursor goes back to 0, known sequences and doubt are forgotten; the ledger's outcomes stay."""


class Doubted(msgspec.Struct, frozen=True):
    """The journal was behind: commands up to this sequence that it does not know to have ended may have begun all the same."""

    up_to: int


Change = Received | Repeated | Begun | Told | Ended | Stored | Advanced | EpochBegun | Forgotten | Reset | Doubted


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal holds when it is opened.

    epochs: all own epochs kept, oldest first (at least the last 64). last: the last event told (None: none ever).
    above: known sequences above the cursor, each with whether its command is unfinished (not yet `stored`; a repeat is finished).
    unfinished: entries in phase `received`, `begun` or `ended`, in order of sequence. recent: entries `stored` whose deadline
    has not passed by `now` given to `open`. outbox: in order. domains, fences: by UUID. doubt: as last `Doubted`, 0: never.
    """

    cursor: int
    epochs: list[str]
    last: Position | None
    above: dict[int, bool]
    unfinished: list[Entry]
    recent: list[Entry]
    outbox: list[OutboxEvent]
    domains: dict[str, Observed]
    fences: dict[str, int]
    doubt: int = 0


class Journal(Protocol):
    """One worker's journal."""

    def open(self, now: float) -> Recovery:
        """Lock it and return what it holds. Blocks. Raises `Locked`, `JournalError` (made by a newer version, unreadable; `Damaged`)."""

    async def commit(self, *changes: Change) -> None:
        """Write `changes` as one transaction and return once they are safe. Raises `JournalFull`; then none of them counts.

        Cancelling the wait does not take the changes back.
        """

    def find(self, project: str, id: str) -> Entry | None:
        """Return a ledger entry as of the last `commit` called (confirmed or not)."""

    def close(self) -> None:
        """Write what waits, release the lock. Blocks. Idempotent."""
