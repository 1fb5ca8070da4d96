"""What a cancel finds, and how that stands in its result: the same for whoever judges it, coordinator or worker (decision 5)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.error import Cancelled, Conflict, Outcome

_ENDED: dict[str, Literal["cancelled", "succeeded", "failed", "expired"]] = {
    "command.cancelled": "cancelled",
    "command.succeeded": "succeeded",
    "command.failed": "failed",
    "command.expired": "expired",
}


class Fate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a cancel's target: the cancel's `result`. recorded: the target's own result, where it ended otherwise."""

    id: str
    state: Literal["cancelled", "begun", "succeeded", "failed", "expired"]
    recorded: dict[str, Any] | None = None


class CancelledBy(Cancelled):
    """Cancelled before it began, or aborted while it ran. by: id of the cancel. outcome: what it left, where it was aborted."""

    def __init__(self, by: str, *, began: bool = False, outcome: Outcome = "none") -> None:
        super().__init__(f"cancelled {'while it ran' if began else 'before it began'}, by command {by!r}", outcome=outcome)
        self.by = by


class TooLate(Conflict):
    """The target has begun, or has ended otherwise; nothing was done."""

    def __init__(self, fate: Fate) -> None:
        what = "has begun, and cannot be stopped" if fate.state == "begun" else f"has ended already: it {_told(fate.state)}"
        super().__init__(f"command {fate.id!r} {what}")
        self.fate = fate


def ended(id: str, result: bytes) -> Fate:
    """Return the fate of a command that ended with `result`. Raises `Invalid` if that is none."""
    state = _ENDED[codec.decode(result, Result).event]
    return Fate(id=id, state=state, recorded=None if state == "cancelled" else codec.decode(result, dict))


def fulfilled(fate: Fate) -> Fate:
    """Return the fate if it is what a cancel is for. Raises `TooLate`."""
    if fate.state != "cancelled":
        raise TooLate(fate)
    return fate


def canceller(result: bytes) -> str | None:
    """Return the id of the cancel that ended a command with `result`, None if none did. Raises `Invalid` if that is no result."""
    found = codec.decode(result, Result).result
    return found.get("cancelled_by") if isinstance(found, dict) else None


def finding(error: Exception) -> dict[str, Any] | msgspec.UnsetType:
    """Return what a command that `error` ended has for its `result`."""
    if isinstance(error, CancelledBy):
        return {"cancelled_by": error.by}
    return msgspec.to_builtins(error.fate) if isinstance(error, TooLate) else msgspec.UNSET


def _told(state: str) -> str:
    return state if state != "expired" else "expired before it began"
