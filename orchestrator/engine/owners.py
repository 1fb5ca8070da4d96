"""Owner records, each change by compare-and-set, so that of two coordinators one decides and the other follows."""

from __future__ import annotations

from orchestrator.bus.port import Stale
from orchestrator.control.custody import successor
from orchestrator.protocol import codec
from orchestrator.protocol.domain import Owner
from orchestrator.store.port import Store


class Owners:
    """The bucket of owner records. All methods raise `Uncertain` and `Unavailable`; then do the same again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def claim(self, uuid: str, owner: Owner) -> Owner:
        """Make the domain's record if it has none; return the record that stands, which may be another's."""
        while True:
            entry = await self._store.get(uuid)
            if entry is not None and entry.value is not None:
                return codec.decode(entry.value, Owner)
            try:
                await self._store.update(uuid, codec.encode(owner), 0 if entry is None else entry.revision)
            except Stale:
                continue
            return owner

    async def succeed(self, uuid: str, node: str, id: str, name: str | None) -> Owner | None:
        """Put command `id` in the place of the one that made the record; None if the record is gone or names another node."""
        while True:
            entry = await self._store.get(uuid)
            if entry is None or entry.value is None:
                return None
            owner = codec.decode(entry.value, Owner)
            if owner.node != node:
                return None
            after = successor(owner, id, name)
            try:
                await self._store.update(uuid, codec.encode(after), entry.revision)
            except Stale:
                continue
            return after

    async def release(self, uuid: str, id: str) -> None:
        """Remove the record if command `id` still stands in it."""
        entry = await self._store.get(uuid)
        if entry is None or entry.value is None or codec.decode(entry.value, Owner).id != id:
            return
        try:
            await self._store.remove(uuid, entry.revision)
        except Stale:
            return  # another command makes the domain again
