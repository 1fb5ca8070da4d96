"""Which commands of this node's log are known, and how far they are done."""

from __future__ import annotations

import heapq
from collections.abc import Mapping


class Progress:
    """Sequences in `VIRT_RUN`: `cursor` (all up to here are in the ledger), those known above it, and which are unfinished."""

    def __init__(self, cursor: int, above: Mapping[int, bool], unfinished: set[int]) -> None:
        """`above`: known sequences above the cursor; `unfinished`: those whose terminal event is not yet stored, wherever."""
        self.cursor = cursor
        self._above = set(above)
        self._unfinished = set(unfinished)
        self._heap = sorted(self._unfinished)

    @property
    def above(self) -> int:
        """How many known sequences lie above the cursor."""
        return len(self._above)

    @property
    def last(self) -> int:
        """The last known sequence."""
        return max(self._above, default=self.cursor)

    @property
    def open(self) -> int:
        """How many commands are not yet done."""
        return len(self._unfinished)

    @property
    def done(self) -> int:
        """Every command up to here has its terminal event stored."""
        while self._heap and self._heap[0] not in self._unfinished:
            heapq.heappop(self._heap)
        return min(self.cursor, self._heap[0] - 1) if self._heap else self.cursor

    def knows(self, sequence: int) -> bool:
        """Tell whether the sequence is in the ledger."""
        return sequence <= self.cursor or sequence in self._above

    def enter(self, sequence: int, *, finished: bool) -> None:
        """Note a sequence as known."""
        if sequence > self.cursor:
            self._above.add(sequence)
        if not finished:
            self._unfinished.add(sequence)
            heapq.heappush(self._heap, sequence)

    def finish(self, sequence: int) -> None:
        """Note that the command's terminal event is stored."""
        self._unfinished.discard(sequence)

    def advance(self, cursor: int) -> None:
        """Move the cursor: every sequence up to it is known."""
        self.cursor = cursor
        self._above = {sequence for sequence in self._above if sequence > cursor}

    def rewind(self, cursor: int) -> None:
        """Set the cursor back: the log ends here, what was above is gone from it."""
        self.cursor = cursor
        self._above.clear()
