"""The journal in memory, for tests and simulations: the port's semantics without a file.

A `MemoryDisk` outlives the journals opened on it, as a disk does its processes. `crash` is kill -9: what was committed
stays, what waits is lost, and the journal that held the disk is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from orchestrator.protocol.domain import Observed
from workers.journal.fences import Fences
from workers.journal.port import (
    Advanced,
    Begun,
    Change,
    Doubted,
    Ended,
    Entry,
    EpochBegun,
    Forgotten,
    JournalError,
    JournalFull,
    Locked,
    OutboxEvent,
    Position,
    Received,
    Recovery,
    Repeated,
    Reset,
    Stored,
    Told,
)

KEPT_EPOCHS = 64
"""Epochs that are kept; older ones leave when a new one begins."""

Key = tuple[str, str]


class Contents:
    """What a journal holds, and what each change does to it."""

    def __init__(self) -> None:
        self.cursor = 0
        self.epochs: set[str] = set()
        self.last: Position | None = None
        self.ledger: dict[Key, Entry] = {}
        self.known: dict[int, set[Key]] = {}
        self.outbox: list[OutboxEvent] = []
        self.domains: dict[str, Observed] = {}
        self.fences = Fences()
        self.doubt = 0

    def copy(self) -> Contents:
        """Return contents that change apart from these."""
        other = Contents()
        other.cursor, other.last, other.doubt = self.cursor, self.last, self.doubt
        other.epochs, other.outbox = set(self.epochs), list(self.outbox)
        other.ledger, other.domains, other.fences = dict(self.ledger), dict(self.domains), self.fences.copy()
        other.known = {sequence: set(keys) for sequence, keys in self.known.items()}
        return other

    def apply(self, change: Change) -> None:
        """Let `change` have happened."""
        _APPLY[type(change)](self, change)

    def recovery(self, now: float) -> Recovery:
        """Return all of it, as `Journal.open` says it."""
        entries = sorted(self.ledger.values(), key=lambda entry: entry.sequence)
        return Recovery(
            cursor=self.cursor,
            epochs=sorted(self.epochs),
            last=self.last,
            above={sequence: self._unfinished(keys) for sequence, keys in sorted(self.known.items()) if sequence > self.cursor},
            unfinished=[entry for entry in entries if entry.phase != "stored"],
            recent=[entry for entry in entries if entry.phase == "stored" and entry.deadline >= now],
            outbox=list(self.outbox),
            domains=dict(self.domains),
            fences=self.fences.highest,
            doubt=self.doubt,
        )

    def _unfinished(self, keys: set[Key]) -> bool:
        return any(key in self.ledger and self.ledger[key].phase != "stored" for key in keys)


def _received(contents: Contents, received: Received) -> None:
    entry = received.entry
    key = (entry.project, entry.id)
    copies = contents.known.setdefault(entry.sequence, set())
    if key not in contents.ledger:
        contents.ledger[key] = entry
        copies.add(key)
    if entry.fence:
        contents.fences.see(entry.uuid, entry.fence)


def _repeated(contents: Contents, repeated: Repeated) -> None:
    contents.known.setdefault(repeated.sequence, set())


def _begun(contents: Contents, begun: Begun) -> None:
    entry = contents.ledger.get((begun.project, begun.id))
    if entry is not None and entry.phase == "received":
        contents.ledger[begun.project, begun.id] = msgspec.structs.replace(entry, phase="begun")


def _told(contents: Contents, told: Told) -> None:
    contents.outbox.extend(told.events)
    if told.events:
        contents.last = told.events[-1].position
    for uuid, observed in told.domains.items():
        if observed is None:
            contents.domains.pop(uuid, None)
        else:
            contents.domains[uuid] = observed


def _ended(contents: Contents, ended: Ended) -> None:
    entry = contents.ledger.get((ended.project, ended.id))
    if entry is not None and entry.phase in ("received", "begun"):
        contents.ledger[ended.project, ended.id] = msgspec.structs.replace(
            entry, phase="ended", result=ended.result, event=ended.event, ended=ended.at
        )


def _stored(contents: Contents, stored: Stored) -> None:
    contents.outbox = [event for event in contents.outbox if event.position > stored.up_to]
    for key, entry in contents.ledger.items():
        if entry.phase == "ended" and entry.event is not None and entry.event <= stored.up_to:
            contents.ledger[key] = msgspec.structs.replace(entry, phase="stored")


def _advanced(contents: Contents, advanced: Advanced) -> None:
    contents.cursor = max(contents.cursor, advanced.cursor)
    contents.known = {sequence: keys for sequence, keys in contents.known.items() if sequence > contents.cursor}


def _epoch_begun(contents: Contents, begun: EpochBegun) -> None:
    contents.epochs = set(sorted({*contents.epochs, begun.epoch})[-KEPT_EPOCHS:])


def _forgotten(contents: Contents, forgotten: Forgotten) -> None:
    contents.ledger = {
        key: entry
        for key, entry in contents.ledger.items()
        if entry.phase != "stored" or entry.ended >= forgotten.ended_before or entry.sequence > contents.cursor
    }
    contents.fences.forget(forgotten.ended_before, contents.domains)


def _reset(contents: Contents, _: Reset) -> None:
    contents.cursor = contents.doubt = 0
    contents.known = {}


def _doubted(contents: Contents, doubted: Doubted) -> None:
    contents.doubt = doubted.up_to


_APPLY: Mapping[type[Change], Callable[[Contents, Any], None]] = {
    Received: _received,
    Repeated: _repeated,
    Begun: _begun,
    Told: _told,
    Ended: _ended,
    Stored: _stored,
    Advanced: _advanced,
    EpochBegun: _epoch_begun,
    Forgotten: _forgotten,
    Reset: _reset,
    Doubted: _doubted,
}


class MemoryDisk:
    """What outlives a journal. While `full`, commits fail with `JournalFull`."""

    def __init__(self) -> None:
        self.contents = Contents()
        self.full = False
        self.holder: MemoryJournal | None = None

    def crash(self) -> None:
        """Kill the worker that holds the disk: what waits is lost, the lock is free."""
        self.holder = None


class MemoryJournal:
    """`Journal` on a `MemoryDisk`; a flush comes with the loop's next turn, as in the real one."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        """Without `disk`, on one of its own."""
        self.disk = disk if disk is not None else MemoryDisk()
        self._seen = Contents()
        self._waiting: list[tuple[tuple[Change, ...], asyncio.Future[None]]] = []

    def open(self, now: float) -> Recovery:
        """Lock the disk and return what it holds. Raises `Locked`."""
        if self.disk.holder is not None:
            raise Locked("the journal is held by another worker; stop that one first")
        self.disk.holder = self
        self._seen = self.disk.contents.copy()
        return self.disk.contents.recovery(now)

    async def commit(self, *changes: Change) -> None:
        """Write `changes` as one transaction, together with those of all who wait. Raises `JournalFull`, `JournalError`."""
        self._check_held()
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((changes, done))
        for change in changes:
            self._seen.apply(change)
        await done

    def find(self, project: str, id: str) -> Entry | None:
        """Return a ledger entry as of the last `commit` called. Raises `JournalError`."""
        self._check_held()
        return self._seen.ledger.get((project, id))

    def close(self) -> None:
        """Write what waits, release the lock. Idempotent."""
        if self.disk.holder is self:
            self._flush()
            self.disk.holder = None

    def _check_held(self) -> None:
        if self.disk.holder is not self:
            raise JournalError("the journal is not open")

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        error = self._refusal()
        if error is None:
            for changes, _ in batch:
                for change in changes:
                    self.disk.contents.apply(change)
        else:
            self._seen = self.disk.contents.copy()
        for _, done in batch:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(type(error)(*error.args))

    def _refusal(self) -> JournalError | None:
        if self.disk.holder is not self:
            return JournalError("the worker that held the journal was killed")
        return JournalFull("the disk is full") if self.disk.full else None
