"""A virtual loop that knows whose work each callback is: a part can be paused, and can die at a chosen step of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVarTuple

from workers.testing.loop import VirtualLoop

Ts = TypeVarTuple("Ts")
Held = tuple[asyncio.Handle, Callable[..., object], tuple[Any, ...], Context | None]

PART: ContextVar[str] = ContextVar("part", default="")
"""The part of the system in whose process a callback runs; empty: the world outside."""


class PartedLoop(VirtualLoop):
    """A loop of several processes that stop and die one by one."""

    def __init__(self) -> None:
        self._paused: dict[str, list[Held]] = {}
        self._doomed: dict[str, tuple[int, Callable[[], object]]] = {}
        super().__init__()

    def pause(self, part: str) -> None:
        """Let nothing of a part run until `resume`, as after SIGSTOP."""
        self._paused.setdefault(part, [])

    def resume(self, part: str) -> None:
        """Let a part go on: what came due meanwhile happens now, in its order."""
        for handle, callback, args, context in self._paused.pop(part, []):
            super().call_soon(_unless_cancelled, handle, callback, args, context=context)

    def doom(self, part: str, steps: int, die: Callable[[], object]) -> None:
        """Call `die` in the midst of the part's work, so many steps from now."""
        self._doomed[part] = steps, die

    def spare(self, part: str) -> None:
        """Take a doom back."""
        self._doomed.pop(part, None)

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        """Call soon; if it is the work of a part that is paused, when that goes on."""
        part = _part(context)
        if not part:
            return super().call_soon(callback, *args, context=context)
        if part in self._doomed:
            self._step(part)
        held = self._paused.get(part)
        if held is None:
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        held.append((handle, callback, args, context))
        return handle

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        """Call at a time, or later if the part is paused then."""
        part = _part(context)
        if not part:
            return super().call_at(when, callback, *args, context=context)
        own: list[asyncio.TimerHandle] = []
        timer = super().call_at(when, self._due, part, own, callback, args, context=context)
        own.append(timer)
        return timer

    def _due(self, part: str, own: list[asyncio.TimerHandle], callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        held = self._paused.get(part)
        if held is None:
            callback(*args)
        else:
            held.append((own[0], callback, args, copy_context()))

    def _step(self, part: str) -> None:
        left, die = self._doomed[part]
        if left > 0:
            self._doomed[part] = left - 1, die
            return
        del self._doomed[part]
        die()


def _part(context: Context | None) -> str:
    return PART.get() if context is None else context.get(PART, "")


def _unless_cancelled(handle: asyncio.Handle, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
    if not handle.cancelled():
        callback(*args)
