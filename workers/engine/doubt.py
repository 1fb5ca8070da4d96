"""Commands that a node may have begun and no longer knows of, since its journal was behind (decision 6).

Those up to a sequence that have no terminal event. They are held, with all that comes behind them, until the log was read
to its end, for only then it is known how many each domain has: where there are several, later ones may have undone what an
earlier one did, and what a domain looks like now tells little of any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.error import Conflict, WireError
from workers.engine.order import Order
from workers.journal.port import Entry


class Doubts:
    """What of one node is in doubt: sequences up to `up_to`, 0: nothing."""

    def __init__(self, up_to: int) -> None:
        self._up_to = up_to
        self._held: list[Order] = []
        self._ended: dict[str, int] = {}
        self.holding = up_to > 0
        """Whether orders are to be held; until `released`."""

    def weighed(self, order: Order) -> Order:
        """Return a new order, as begun if it may have been. What has no turn in its domain's queue, or no command, had no effect."""
        if order.entry.sequence > self._up_to or order.command is None or order.command.verb.kind == "control":
            return order
        return msgspec.structs.replace(order, entry=msgspec.structs.replace(order.entry, phase="begun"))

    def recalled(self, order: Order) -> Order:
        """Return an order that was entered before this start. Others of its domain may have been settled since, and are gone from view."""
        return msgspec.structs.replace(order, doubt="crowd") if order.entry.sequence <= self._up_to else order

    def hold(self, order: Order) -> None:
        """Keep an order until `released`."""
        self._held.append(order)

    def note(self, entry: Entry, sequence: int) -> None:
        """Take that the message at `sequence` is that of `entry`, which has ended: what it overtook never began."""
        if self.holding and entry.sequence == sequence and entry.result and _took_its_turn(entry):
            self._ended[entry.uuid] = max(self._ended.get(entry.uuid, 0), sequence)

    def released(self) -> Iterator[tuple[Order, WireError | None]]:
        """Yield what was held, in order, each with what it is to be ended with, if anything; from now on nothing is held."""
        held, self._held, self.holding = self._held, [], False
        doubtful = Counter(order.entry.uuid for order in held if self._is_doubtful(order) and not self._overtaken(order))
        for order in held:
            error: WireError | None = None
            if self._is_doubtful(order) and self._overtaken(order):
                error = Conflict("overtaken: a later command of this domain began before it; send it again with a new id", retryable=True)
            elif self._is_doubtful(order) and order.doubt == "crash":
                yield msgspec.structs.replace(order, doubt="lost" if doubtful[order.entry.uuid] == 1 else "crowd"), None
                continue
            yield order, error

    def _is_doubtful(self, order: Order) -> bool:
        return order.entry.phase == "begun" and order.entry.sequence <= self._up_to

    def _overtaken(self, order: Order) -> bool:
        return order.entry.sequence < self._ended.get(order.entry.uuid, 0)


def _took_its_turn(entry: Entry) -> bool:
    """Tell whether a command that ended had surely begun; one that was refused need not have waited for those before it."""
    result = codec.decode(entry.result, Result)
    if result.error is not msgspec.UNSET:
        return result.error.outcome != "none"
    return entry.verb != "cancel"
