"""Key-value buckets as the engines see them: a bucket is a log with one message a key (ADR-8), so one adapter serves every bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A key's value. `value` is None where the key was removed, purged or ran out; `revision` is its sequence then too."""

    key: str
    value: bytes | None
    revision: int


class Store(Protocol):
    """One bucket. All methods raise `Uncertain` and `Unavailable` of the bus; an `Uncertain` write may have happened."""

    async def get(self, key: str) -> Entry | None:
        """Return the key's entry (a marker too, with value None), or None if the bucket knows nothing of it."""

    async def put(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Set the key whatever it holds; return the revision. `ttl_s` > 0: it expires after so many whole seconds."""

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int = 0) -> int:
        """Set the key if `revision` is still its last (0: it was never there, or nothing of it is kept); return the new one.

        Also over a removal marker, at the marker's revision. Raises `Stale` if another wrote meanwhile.
        """

    async def remove(self, key: str, revision: int | None = None, *, marker_s: int = 0) -> None:
        """Purge the key and leave a marker (for `marker_s` seconds if > 0). With `revision`: only if it is still the last, else `Stale`."""

    def watch(self, keys: str = ">") -> AsyncGenerator[list[Entry] | None]:
        """Yield what is there (in any portions), then None once, then changes as they come, for ever.

        Reconnects by itself and goes on where it was; after a broken session it yields the whole content again and
        a second None, since markers may have run out meanwhile: keys not repeated are gone.
        """

    async def revision(self) -> int:
        """Return the last revision of the whole bucket, 0 if empty: who has watched up to here has seen all that was written before."""

