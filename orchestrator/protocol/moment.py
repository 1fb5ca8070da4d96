"""Moments as they stand on the wire: RFC 3339, UTC, microseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def timestamp(seconds: float) -> str:
    """Return Unix seconds as RFC 3339 UTC with microseconds."""
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_second(whole)}.{microseconds:06d}Z"


@lru_cache(maxsize=64)
def _second(whole: int) -> str:
    # Remembered, since thousands of commands fall into one second.
    return datetime.fromtimestamp(whole, UTC).isoformat()[:-6]
