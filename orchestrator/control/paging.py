"""Lists in pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from orchestrator.protocol import codec

MAX_PAGE = 240 * 1024
"""Bytes of a page; a result over 256 KiB would have to travel another way (PROTOCOL §2)."""


def page(field: str, rows: Iterable[tuple[str, Any]], *, limit: int, after: str) -> dict[str, Any]:
    """Return `{field: […], "next": …}`: the first rows by key behind `after`; `next` only if there are more.

    At least one row is given where there is one, then as many as `limit` and the size of a page allow.
    """
    ahead = sorted((row for row in rows if row[0] > after), key=lambda row: row[0])
    taken: list[msgspec.Raw] = []
    size = 0
    for _, value in ahead[:limit]:
        raw = codec.encode(value)
        size += len(raw)
        if taken and size > MAX_PAGE:
            break
        taken.append(msgspec.Raw(raw))
    answer: dict[str, Any] = {field: taken}
    if len(taken) < len(ahead):
        answer["next"] = ahead[len(taken) - 1][0]
    return answer
