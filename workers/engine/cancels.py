"""Cancels on their way: judged out of turn, as soon as it is known what they mean (decision 5).

What they mean is a command of this node. One that the ledger does not know may still lie in the log, since pushes are
only hints; so a cancel of it waits until the log was read up to the cancel itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from orchestrator.protocol.cancel import Fate, TooLate, ended, fulfilled
from orchestrator.protocol.error import DeadlineExceeded, NotFound, WireError
from orchestrator.protocol.verb import CommandIdArgs
from workers.engine.order import Order
from workers.engine.progress import Progress
from workers.journal.port import Entry, Journal

Withdraw = Callable[[Entry], bool]
"""Takes a command that waits out of its domain's queue, so that it never begins; False if it does not wait there."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a cancel ends. target: what is to be ended with it, in the same commit. fate: of the target. error: why nothing is done."""

    entry: Entry
    target: Entry | None = None
    fate: Fate | None = None
    error: WireError | None = None


class Cancels:
    """The cancels of one node that have not ended. `clock` gives broker time."""

    def __init__(self, journal: Journal, progress: Progress, withdraw: Withdraw, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._progress = progress
        self._withdraw = withdraw
        self._clock = clock
        self._waiting: list[Order] = []

    def __len__(self) -> int:
        """Return how many wait: those that name what the ledger does not know, after `judged`."""
        return len(self._waiting)

    def add(self, order: Order) -> None:
        """Take a cancel that is in the ledger."""
        self._waiting.append(order)

    def judged(self) -> Iterator[Verdict]:
        """Yield the verdicts that can be given, oldest first. Call the commit of each with no await after it was yielded."""
        waiting, self._waiting = self._waiting, []
        for order in waiting:
            try:
                verdict = self._judge(order)
            except WireError as error:
                verdict = Verdict(entry=order.entry, error=error)
            if verdict is None:
                self._waiting.append(order)
            else:
                yield verdict

    def _judge(self, order: Order) -> Verdict | None:
        entry = order.entry
        if entry.deadline <= self._clock():
            raise DeadlineExceeded("not judged before its deadline")
        assert order.command is not None  # noqa: S101  what has no command was ended by the ledger
        assert isinstance(order.command.args, CommandIdArgs)  # noqa: S101  the registry's verbs of this kind take these
        id = order.command.args.id
        target = self._journal.find(entry.project, id)
        if target is None and self._progress.cursor < entry.sequence:
            return None
        if target is None or target.uuid != entry.uuid:
            raise NotFound(f"no command {id!r} of domain {entry.uuid} is in this node's ledger")
        if target.phase in ("ended", "stored"):
            return Verdict(entry=entry, fate=fulfilled(ended(id, target.result)))
        if target.phase == "begun" or not self._withdraw(target):
            raise TooLate(Fate(id=id, state="begun"))
        return Verdict(entry=entry, target=target, fate=Fate(id=id, state="cancelled"))
