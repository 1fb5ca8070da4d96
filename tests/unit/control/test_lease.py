"""What a missing lease means."""

from __future__ import annotations

import pytest

from orchestrator.bus import logs
from orchestrator.control.lease import LEADER_SAFE_S, LEADER_SILENT_S, LEADER_TTL_S, LEASE_S, counts, may_take


@pytest.mark.parametrize(
    ("living", "session_s", "expected"), [(True, 1e6, False), (False, 2 * LEASE_S - 0.1, False), (False, 2 * LEASE_S, True)]
)
def test_a_missing_lease_counts_after_twice_its_time_in_one_session(living: bool, session_s: float, expected: bool) -> None:
    """After a broken session every lease may look ended."""
    assert expected == counts(living=living, session_s=session_s)


@pytest.mark.parametrize(
    ("held", "unchanged_s", "expected"), [(False, 0.0, True), (True, LEADER_SILENT_S - 0.1, False), (True, LEADER_SILENT_S, True)]
)
def test_leadership_is_free_when_nobody_holds_it_or_its_holder_is_long_silent(held: bool, unchanged_s: float, expected: bool) -> None:
    """The second is for a broker that did not end the key."""
    assert expected == may_take(held=held, unchanged_s=unchanged_s)


def test_a_leader_stops_before_its_key_does() -> None:
    """What it sent at last must be stored before a successor reads."""
    assert LEADER_SAFE_S < LEADER_TTL_S < LEADER_SILENT_S


def test_leases_live_as_long_as_they_are_provisioned_to() -> None:
    """Both rooms have the number from the protocol."""
    assert LEASE_S == logs.LEASE_S
