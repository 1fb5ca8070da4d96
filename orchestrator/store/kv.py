"""A bucket over any bus: it is the log `KV_<bucket>` with one message a key (ADR-8), so other NATS clients see the same."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio

from orchestrator.bus import header
from orchestrator.bus.logs import bucket_log
from orchestrator.bus.port import Bus, Expect, Message, Outgoing, Reader, Start, Unavailable, Uncertain
from orchestrator.log import get_logger
from orchestrator.store.port import Entry

_PORTION = 256
_WAIT_S = 10.0
_PAUSE_S = 0.25
_KEY = re.compile(r"[-/_=A-Za-z0-9]+(\.[-/_=A-Za-z0-9]+)*\Z")
_KEYS = re.compile(r"([-/_=A-Za-z0-9]+|\*)(\.([-/_=A-Za-z0-9]+|\*))*(\.>)?\Z|>\Z")

_log = get_logger()


class KeyValue:
    """One bucket, which somebody has provisioned as a log with `max_per_subject` 1.

    watcher: name of the reader by which this object watches, unique among all watchers of the bucket, since a new reader
    takes the place of an earlier one of its name; a broker permission can hold it. None: a random one.
    One object watches once at a time: a second `watch` ends the first.
    """

    def __init__(self, bus: Bus, bucket: str, *, watcher: str | None = None) -> None:
        self.log = bucket_log(bucket)
        self._bus = bus
        self._prefix = f"$KV.{bucket}."
        self._watcher = watcher or f"watch-{os.urandom(8).hex()}"
        self._watches = 0

    async def get(self, key: str) -> Entry | None:
        """Return the key's entry (a marker too, with value None), or None if the bucket knows nothing of it."""
        message = await self._bus.last(self.log, self._subject(key))
        return None if message is None else self._entry(message)

    async def put(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Set the key whatever it holds; return the revision. `ttl_s` > 0: it expires after so many whole seconds."""
        return await self._bus.append(Outgoing(self._subject(key), value, _ttl(ttl_s)))

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int = 0) -> int:
        """Set the key if `revision` is still its last, 0: nothing of it is kept; return the new one. Raises `Stale`."""
        return await self._bus.append(Outgoing(self._subject(key), value, _ttl(ttl_s)), Expect(revision))

    async def remove(self, key: str, revision: int | None = None, *, marker_s: int = 0) -> None:
        """Purge the key and leave a marker. With `revision`: only if it is still the last, else `Stale`."""
        headers = {header.OPERATION: "PURGE", header.ROLLUP: "sub", **_ttl(marker_s)}
        await self._bus.append(Outgoing(self._subject(key), b"", headers), None if revision is None else Expect(revision))

    async def revision(self) -> int:
        """Return the last revision of the whole bucket, 0 if empty."""
        message = await self._bus.last(self.log, self._prefix + ">")
        return 0 if message is None else message.sequence

    async def watch(self, keys: str = ">") -> AsyncGenerator[list[Entry] | None]:
        """Yield what is there, then None, then changes; all of it again after a broken session.

        Raises `Refused` where the bucket is not provisioned, and `RuntimeError` in a watch that a second one ended.
        """
        if not _KEYS.match(keys):
            raise ValueError(f"{keys!r} is no filter of keys")
        self._watches += 1
        watch = self._watches
        while True:
            session = await self._bus.link.up()
            self._check(watch)
            try:
                reader = await self._bus.reader(self.log, self._watcher, self._prefix + keys, Start(last_per_subject=True))
                async with aclosing(self._followed(reader, watch)) as portions:
                    async for portion in portions:
                        yield portion
            except (Uncertain, Unavailable) as error:
                _log.info("store.watch_again", log=self.log, watcher=self._watcher, reason=str(error))
            await self._pause(session)

    async def _followed(self, reader: Reader, watch: int) -> AsyncGenerator[list[Entry] | None]:
        """Yield what lies before `reader`, None once that was all, then what comes, until it raises.

        What was there is complete when as many messages came as were pending, or none lies ahead any more: of a key that
        changed meanwhile the newer message comes instead, and one that expired comes not at all.
        """
        ahead = reader.pending
        while ahead > 0:
            messages = await self._taken(reader, watch)
            ahead = ahead - len(messages) if messages else 0
            if messages:
                yield self._entries(messages)
        yield None
        while True:
            messages = await self._taken(reader, watch, wait_s=_WAIT_S)
            if messages:
                yield self._entries(messages)

    async def _taken(self, reader: Reader, watch: int, wait_s: float | None = None) -> list[Message]:
        """Take the next messages. Raises as `take`, and `RuntimeError` if a later watch has made a reader of this one's name."""
        self._check(watch)
        try:
            return await reader.take(_PORTION, wait_s=wait_s)
        except Uncertain:
            self._check(watch)
            raise

    def _check(self, watch: int) -> None:
        if watch != self._watches:
            raise RuntimeError(f"{self.log}: another watch took the place of this one; it needs a KeyValue of its own")

    async def _pause(self, session: int) -> None:
        """Wait until a new session may have begun; in the same one, long enough not to press a broker in trouble."""
        with anyio.move_on_after(_PAUSE_S):
            await self._bus.link.up(after=session)

    def _subject(self, key: str) -> str:
        if not _KEY.match(key):
            raise ValueError(f"{key!r} is no key: use A-Z a-z 0-9 - / _ = in tokens parted by dots")
        return self._prefix + key

    def _entries(self, messages: list[Message]) -> list[Entry]:
        return [self._entry(message) for message in messages]

    def _entry(self, message: Message) -> Entry:
        value = None if header.is_marker(message.headers) else message.body
        return Entry(message.subject.removeprefix(self._prefix), value, message.sequence)


def _ttl(seconds: int) -> dict[str, str]:
    return {header.TTL: f"{seconds}s"} if seconds > 0 else {}
