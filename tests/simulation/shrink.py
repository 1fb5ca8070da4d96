"""A failing seed made smaller: faults and meddlings that it fails without are left out."""

from __future__ import annotations

import msgspec

from tests.simulation.plan import Plan
from tests.simulation.world import Failure, simulate


def without(plan: Plan, *, faults: frozenset[int] = frozenset(), meddling: bool = True) -> Plan:
    """Return the plan without the faults of these places, and perhaps with nobody who meddles; all else is the same."""
    kept = [fault for place, fault in enumerate(plan.faults) if place not in faults]
    return msgspec.structs.replace(plan, faults=kept, meddlings=plan.meddlings if meddling else [])


def shrunk(plan: Plan) -> tuple[frozenset[int], bool, Failure | None]:
    """Return the places of faults that can be left out, whether meddling must stay, and how the rest fails."""
    left_out: frozenset[int] = frozenset()
    failure, _ = simulate(plan)
    meddling = simulate(without(plan, meddling=False))[0] is None
    for place in range(len(plan.faults)):
        fewer = left_out | {place}
        again, _ = simulate(without(plan, faults=fewer, meddling=meddling))
        if again is not None:
            left_out, failure = fewer, again
    return left_out, meddling, failure
