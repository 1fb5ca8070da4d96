"""How often things are done, in seconds; tests make it quicker."""

from __future__ import annotations

import msgspec

GRACE_S = 0.25
"""Seconds beyond its deadline in which a command's end may still be told to who waits on `api`."""

TRY_S = 300.0
"""Seconds for which a command of `api` is offered to the log at most; far less than an owner record stands with nothing in it."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """look: without a result until a waiter is looked up in the log. retry: before what failed is tried again, at most ten times that.

    ask: for which a node may think about a query. tick: between two rounds of the leader's keeping, storing and watching.
    renew: between two renewals of leadership.
    """

    look: float = 1.0
    retry: float = 0.1
    ask: float = 10.0
    tick: float = 1.0
    renew: float = 3.0
