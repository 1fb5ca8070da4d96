"""What commits that are called and not yet written will have done to the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter

import msgspec

from workers.journal.port import Advanced, Begun, Change, Ended, Entry, Forgotten, Received, Reset, Stored

_Keyed = Received | Begun | Ended
_Sweeping = Stored | Advanced | Forgotten | Reset


class Pending:
    """Changes in the order of their commits, found by the command they touch."""

    def __init__(self) -> None:
        self._of: defaultdict[tuple[str, str], list[tuple[int, Change]]] = defaultdict(list)
        self._sweeping: list[tuple[int, Change]] = []
        self._count = 0

    def add(self, changes: Sequence[Change]) -> None:
        """Take in the changes of one commit."""
        for change in changes:
            self._count += 1
            if isinstance(change, _Keyed):
                key = change.entry if isinstance(change, Received) else change
                self._of[key.project, key.id].append((self._count, change))
            elif isinstance(change, _Sweeping):
                self._sweeping.append((self._count, change))

    def touches(self, project: str, id: str) -> bool:
        """Tell whether a change that waits may concern this command."""
        return bool(self._sweeping) or (project, id) in self._of

    def seen(self, entry: Entry | None, project: str, id: str, cursor: int) -> Entry | None:
        """Return the ledger entry as it will be; `entry` and `cursor` are as written."""
        changes = [*self._of.get((project, id), ()), *self._sweeping]
        for _, change in sorted(changes, key=itemgetter(0)):
            cursor = moved(cursor, change)
            entry = _entered(entry, change) if isinstance(change, Received) else _changed(entry, change, cursor)
        return entry


def moved(cursor: int, change: Change) -> int:
    """Return where `change` leaves the cursor."""
    if isinstance(change, Advanced):
        return max(cursor, change.cursor)
    return 0 if isinstance(change, Reset) else cursor


def _entered(entry: Entry | None, received: Received) -> Entry:
    return entry if entry is not None else received.entry


def _changed(entry: Entry | None, change: Change, cursor: int) -> Entry | None:
    if entry is None:
        return None
    match change:
        case Begun() if entry.phase == "received":
            return msgspec.structs.replace(entry, phase="begun")
        case Ended() if entry.phase in ("received", "begun"):
            return msgspec.structs.replace(entry, phase="ended", result=change.result, event=change.event, ended=change.at)
        case Stored() if entry.phase == "ended" and entry.event is not None and entry.event <= change.up_to:
            return msgspec.structs.replace(entry, phase="stored")
        case Forgotten() if entry.phase == "stored" and entry.ended < change.ended_before and entry.sequence <= cursor:
            return None
    return entry
