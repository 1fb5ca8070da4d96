"""What a lease that ended means, and when leadership may be taken."""

from __future__ import annotations

LEASE_S = 15.0
"""Seconds that a node's lease lives without renewal (PROTOCOL §2)."""

LEADER_TTL_S = 10
"""Seconds that leadership lives without renewal."""

LEADER_SAFE_S = 8.0
"""Seconds after the last renewal began in which a leader still acts: less than it is given, for what is on its way."""

LEADER_SILENT_S = 30.0
"""Seconds of an unchanged record, watched over an unbroken session, after which it is taken even though it still stands."""


def counts(*, living: bool, session_s: float) -> bool:
    """Tell whether a missing lease means that the node is silent.

    After a broken session every lease may look ended; it counts only after twice the lease time in one session.
    """
    return not living and session_s >= 2 * LEASE_S


def may_take(*, held: bool, unchanged_s: float) -> bool:
    """Tell whether leadership is free: nobody holds it, or its holder has not renewed it for far too long."""
    return not held or unchanged_s >= LEADER_SILENT_S
