"""Fences: by domain, the highest owner epoch seen in an order; lower ones come from an owner of before.

A fence stays for as long as its domain is there, and then as long again as commands are remembered: what an owner of
before sends is late by seconds, not by a day.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

KEPT_S = 24 * 3600.0
"""Seconds for which the fence of a domain that is gone is kept, from when that was noticed."""


class Fences:
    """The fences of one node, by UUID."""

    def __init__(self, highest: Mapping[str, int] | None = None) -> None:
        self.highest = dict(highest or {})
        self._gone: dict[str, float] = {}

    def copy(self) -> Fences:
        """Return fences that change apart from these."""
        other = Fences(self.highest)
        other._gone = dict(self._gone)
        return other

    def see(self, uuid: str, fence: int) -> None:
        """Take a fence that came with an order."""
        if fence > self.highest.get(uuid, 0):
            self.highest[uuid] = fence
            self._gone.pop(uuid, None)

    def forget(self, ended_before: float, present: Container[str]) -> None:
        """Drop what belongs to domains long gone. Call it now and then; `ended_before` is a clock that runs as time does."""
        for uuid in list(self.highest):
            if uuid in present:
                self._gone.pop(uuid, None)
            elif self._gone.setdefault(uuid, ended_before) < ended_before - KEPT_S:
                del self.highest[uuid], self._gone[uuid]
