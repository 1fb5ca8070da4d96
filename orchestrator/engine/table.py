"""One bucket in memory, kept up to date by a watch, with a barrier that makes reads see all that was written before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Generic, TypeVar

import anyio
import msgspec

from orchestrator.bus.port import BusError, Link
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.error import Invalid
from orchestrator.store.port import Entry, Store

_LAG_S = 0.5
"""Seconds for which the barrier trusts the watch to come, before it has the bucket read anew."""

_PAUSE_S = 0.1

_log = get_logger()

T = TypeVar("T")


class Row(msgspec.Struct, Generic[T], frozen=True):
    """A key's value and the revision at which it was set."""

    value: T
    revision: int


class Table(Generic[T]):
    """The living keys of a bucket as values of `kind`; what does not fit is left out and logged.

    keys: which are watched; the barrier holds only where that is all of the bucket. changed: called with key, old and new
    value (None: there is none) after each change, on the loop.
    The rows outlive a broken session; the next one replaces them as a whole, so that what ended meanwhile goes.
    """

    def __init__(
        self, store: Store, link: Link, kind: type[T], changed: Callable[[str, T | None, T | None], None], *, keys: str = ">"
    ) -> None:
        self.rows: dict[str, Row[T]] = {}
        self._store = store
        self._link = link
        self._kind = kind
        self._changed = changed
        self._keys = keys
        self._passed = 0
        self._begun = 0
        self._complete = 0
        self._anew = anyio.Event()
        self._progress = asyncio.Event()

    def get(self, key: str) -> T | None:
        """Return a key's value, None if it has none."""
        row = self.rows.get(key)
        return None if row is None else row.value

    async def run(self) -> None:
        """Watch for ever; one watch a session of the connection."""
        while True:
            session = await self._link.up()
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._until_stale, session, tasks.cancel_scope)
                    await self._watch()
                    tasks.cancel_scope.cancel()
            except* BusError as group:
                _log.warning("mirror.watch_failed", kind=self._kind.__name__, reason=str(group.exceptions[0]))
                await anyio.sleep(_PAUSE_S)

    async def caught_up(self) -> None:
        """Wait until the rows show all that was written to the bucket before this call. Raises `Uncertain`, `Unavailable`."""
        snapshot = self._begun
        target = await self._store.revision()
        if self._reached(target, snapshot):
            return
        with anyio.move_on_after(_LAG_S):
            await self._until(target, snapshot)
            return
        # The entry that we wait for may have gone before the watch came to it; a new reading of all settles it.
        self._anew.set()
        await self._until(target, snapshot)

    async def filled(self) -> None:
        """Wait until the bucket was read once."""
        await self._until(0, 0)

    def _reached(self, target: int, snapshot: int) -> bool:
        current = self._complete == self._begun
        return current and self._begun > 0 and (self._passed >= target or self._complete > snapshot)

    async def _until(self, target: int, snapshot: int) -> None:
        while not self._reached(target, snapshot):
            await self._progress.wait()

    async def _until_stale(self, session: int, scope: anyio.CancelScope) -> None:
        async with anyio.create_task_group() as tasks:

            async def wait_down() -> None:
                await self._link.down(session)
                tasks.cancel_scope.cancel()

            tasks.start_soon(wait_down)
            await self._anew.wait()
            tasks.cancel_scope.cancel()
        scope.cancel()

    async def _watch(self) -> None:
        """Take in one snapshot and what follows it; return when the watch begins a second one by itself."""
        self._anew = anyio.Event()
        self._begun += 1
        self._passed = 0
        seen: set[str] = set()
        async with aclosing(self._store.watch(self._keys)) as portions:
            async for portion in portions:
                if portion is not None:
                    self._take(portion)
                    seen.update(entry.key for entry in portion if self._complete < self._begun)
                elif self._complete == self._begun:
                    return
                else:
                    self._finish(seen)
                self._tell()

    def _finish(self, seen: set[str]) -> None:
        for key in [key for key in self.rows if key not in seen]:
            self._set(Entry(key, None, 0))
        self._complete = self._begun

    def _take(self, portion: list[Entry]) -> None:
        for entry in portion:
            self._set(entry)
            self._passed = max(self._passed, entry.revision)

    def _set(self, entry: Entry) -> None:
        before = self.get(entry.key)
        value = self._decoded(entry)
        if value is None:
            self.rows.pop(entry.key, None)
        else:
            self.rows[entry.key] = Row(value, entry.revision)
        if value != before:
            self._changed(entry.key, before, value)

    def _decoded(self, entry: Entry) -> T | None:
        if entry.value is None:
            return None
        try:
            return codec.decode(entry.value, self._kind)
        except Invalid as error:
            _log.warning("mirror.unreadable", kind=self._kind.__name__, key=entry.key, reason=error.message)
            return None

    def _tell(self) -> None:
        # Who waits now is woken and looks again.
        self._progress.set()
        self._progress.clear()
