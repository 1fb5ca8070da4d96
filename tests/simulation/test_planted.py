"""Bugs planted in the ledger, and in what feeds it, are found, each within a thousand seeds: else the laws would prove nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.plan import plan
from tests.simulation.world import Failure, simulate
from workers.engine.execution import Execution
from workers.engine.intake import Intake
from workers.engine.ledger import Ledger
from workers.journal.memory import MemoryJournal
from workers.journal.port import Begun, Change, Received

MOST = 1_000

Plant = Callable[[pytest.MonkeyPatch], None]


def found(by: str) -> Failure:
    """Return the first failure of a thousand seeds whose reason has one of the phrases in `by`."""
    for seed in range(1, MOST + 1):
        failure, _ = simulate(plan(seed))
        if failure is not None and re.search(by, failure.reason):
            return failure
    raise AssertionError(f"{MOST} seeds do not find the bug")


def without_change(kind: type[Change]) -> Plant:
    """Return what makes a journal leave out one kind of change."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        commit = MemoryJournal.commit

        async def forgetful(journal: MemoryJournal, *changes: Change) -> None:
            await commit(journal, *(change for change in changes if not isinstance(change, kind)))

        monkeypatch.setattr(MemoryJournal, "commit", forgetful)

    return plant


def repeats_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the look whether a command is in the ledger."""
    monkeypatch.setattr(Ledger, "_known", lambda *_: None)


def doubts_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do again what had begun when a worker died, instead of looking."""
    monkeypatch.setattr(Execution, "_settle_doubt", Execution._begin)


def pushes_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the cursor by pushes, without counting what the log has."""

    async def believe(intake: Any) -> None:
        await intake._advance_to(intake._progress.last)

    monkeypatch.setattr(Intake, "_count", believe)


PLANTED: dict[str, tuple[Plant, str]] = {
    "repeats-unknown": (repeats_unknown, "begins .* again"),
    "received-uncommitted": (without_change(Received), "its ledger does not have"),
    "begun-uncommitted": (without_change(Begun), "no such command has begun"),
    "doubts-repeated": (doubts_repeated, "begins .* again"),
    "pushes-believed": (pushes_believed, "without an end"),
}
"""Each with what the law says that it breaks."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """By the law that it breaks."""
    plant, law = PLANTED[bug]
    plant(monkeypatch)
    failure = found(law)
    print(f"{bug}: found with seed {failure.seed}, {failure.reason[:120]}")
