"""Libvirt's numbers as words: lower case, joined by '-', as they travel (PROTOCOL §5, §6). The place in a list is the number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.protocol.domain import State

STATES: tuple[State, ...] = ("nostate", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "pmsuspended")
"""virDomainState."""

# fmt: off
REASONS: Mapping[State, Sequence[str]] = {
    "nostate": ("unknown",),
    "running": (
        "unknown", "booted", "migrated", "restored", "from-snapshot", "unpaused", "migration-canceled", "save-canceled",
        "wakeup", "crashed", "postcopy", "postcopy-failed",
    ),
    "blocked": ("unknown",),
    "paused": (
        "unknown", "user", "migration", "save", "dump", "ioerror", "watchdog", "from-snapshot", "shutting-down",
        "snapshot", "crashed", "starting-up", "postcopy", "postcopy-failed", "api-error",
    ),
    "shutdown": ("unknown", "user"),
    "shutoff": ("unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "daemon"),
    "crashed": ("unknown", "panicked"),
    "pmsuspended": ("unknown",),
}
"""The reasons of each state, virDomain*Reason."""

LIFECYCLE = ("defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "pmsuspended", "crashed")
"""virDomainEventType, as `virsh event` prints it."""

DETAILS: Mapping[str, Sequence[str]] = {
    "defined": ("added", "updated", "renamed", "from-snapshot"),
    "undefined": ("removed", "renamed"),
    "started": ("booted", "migrated", "restored", "from-snapshot", "wakeup"),
    "suspended": (
        "paused", "migrated", "ioerror", "watchdog", "restored", "from-snapshot", "api-error", "postcopy", "postcopy-failed",
    ),
    "resumed": ("unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"),
    "stopped": ("shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "recreated"),
    "shutdown": ("finished", "guest", "host"),
    "pmsuspended": ("memory", "disk"),
    "crashed": ("panicked", "crashloaded"),
}
"""The details of each lifecycle event, virDomainEvent*DetailType."""
# fmt: on


def state(number: int) -> State:
    """Return the name of a virDomainState; `unknown` for one that a newer libvirt may bring."""
    return STATES[number] if 0 <= number < len(STATES) else "unknown"


def reason(of: State, number: int) -> str:
    """Return the name of the reason for which a domain is in state `of`."""
    return nth(REASONS.get(of, ()), number)


def nth(names: Sequence[str], number: int) -> str:
    """Return the name at `number`; the number itself, as `code-<number>`, for one that a newer libvirt may bring."""
    return names[number] if 0 <= number < len(names) else f"code-{number}"
