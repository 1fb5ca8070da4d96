"""Cancels on their way: judged out of turn, as soon as it is known what they mean (decision 5).

What they mean is a command of this node. One that the ledger does not know may still lie in the log, since pushes are
only hints; so a cancel of it waits until the log was read up to the cancel itself. A cancel of a job that can be given up waits
for the job's end, which tells what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from orchestrator.protocol.cancel import Fate, TooLate, canceller, ended, fulfilled
from orchestrator.protocol.error import DeadlineExceeded, NotFound, WireError
from orchestrator.protocol.verb import CommandIdArgs
from workers.engine.order import Order
from workers.engine.progress import Progress
from workers.journal.port import Entry, Journal

Withdraw = Callable[[Entry], bool]
"""Takes a command that waits out of its domain's queue, so that it never begins; False if it does not wait there."""


Stopping = Literal["asked", "later", "no"]
"""Whether a command that has begun is being given up. later: it was begun before this start, and its turn to be looked at comes."""

Abort = Callable[[Entry, str], Stopping]
"""Has a command that has begun given up, for the cancel with this id."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a cancel ends. changed: it ended its target. target: what is to be ended with it, in the same commit. fate: of the target.

    error: why nothing is done, or is not known to be.
    """

    entry: Entry
    changed: bool = False
    target: Entry | None = None
    fate: Fate | None = None
    error: WireError | None = None


class Cancels:
    """The cancels of one node that have not ended. `clock` gives broker time."""

    def __init__(self, journal: Journal, progress: Progress, withdraw: Withdraw, abort: Abort, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._progress = progress
        self._withdraw = withdraw
        self._abort = abort
        self._clock = clock
        self._waiting: list[Order] = []
        self._stopping: list[Order] = []

    def __len__(self) -> int:
        """Return how many name what the ledger does not know, after `judged`."""
        return len(self._waiting)

    def add(self, order: Order) -> None:
        """Take a cancel that is in the ledger."""
        self._waiting.append(order)

    def judged(self) -> Iterator[Verdict]:
        """Yield the verdicts that can be given, oldest first. Call the commit of each with no await after it was yielded."""
        waiting, self._waiting = self._waiting, []
        stopping, self._stopping = self._stopping, []
        for order, asked in (*((order, True) for order in stopping), *((order, False) for order in waiting)):
            try:
                verdict = self._judge(order, asked=asked)
            except WireError as error:
                verdict = Verdict(entry=order.entry, error=error)
            if verdict is not None:
                yield verdict

    def _judge(self, order: Order, *, asked: bool) -> Verdict | None:
        """Return the verdict, None if the order has to wait on. asked: its target is being given up."""
        entry = order.entry
        if entry.deadline <= self._clock():
            raise DeadlineExceeded("not judged before its deadline", outcome="unknown" if asked else "none")
        assert order.command is not None  # noqa: S101  what has no command was ended by the ledger
        assert isinstance(order.command.args, CommandIdArgs)  # noqa: S101  the registry's verbs of this kind take these
        id = order.command.args.id
        target = self._journal.find(entry.project, id)
        if target is None and self._progress.cursor < entry.sequence:
            self._waiting.append(order)
            return None
        if target is None or target.uuid != entry.uuid:
            raise NotFound(f"no command {id!r} of domain {entry.uuid} is in this node's ledger")
        if target.phase in ("ended", "stored"):
            # What a job's end left to be told may have outlived the worker.
            return Verdict(entry=entry, changed=canceller(target.result) == entry.id, fate=fulfilled(ended(id, target.result)))
        if target.phase == "begun" and self._abort(target, entry.id) != "no":
            self._stopping.append(order)
            return None
        if target.phase == "begun" or not self._withdraw(target):
            raise TooLate(Fate(id=id, state="begun"))
        return Verdict(entry=entry, changed=True, target=target, fate=Fate(id=id, state="cancelled"))
