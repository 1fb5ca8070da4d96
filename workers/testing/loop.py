"""An event loop on which waiting costs nothing: when nothing can run, its time jumps to the next timer.

    anyio.run(main, backend_options={"loop_factory": VirtualLoop})
    with asyncio.Runner(loop_factory=VirtualLoop) as runner: ...

What takes its time from the loop lives in virtual time: `asyncio.sleep`, timeouts, `anyio.current_time` (for whatever has
a `monotonic=`), and for a `clock=` what `wall_clock` returns. `time.time`, `time.sleep` and other processes do not.

The same program does the same in the same order, run after run: sets of tasks have one order here. Threads of the loop's
executor (`asyncio.to_thread`) hold its time up, for a real second at most, since one may wait for the loop in turn. It sees
no other threads (`anyio.to_thread`): for what they do its time may run ahead.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from itertools import count
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Ready = list[tuple[selectors.SelectorKey, int]]

EPOCH_S = 1_767_225_600.0
"""Unix seconds of a virtual loop's beginning: 2026-01-01."""

PATIENCE_S = 1.0
"""Real seconds for which something from outside the loop, a thread or a socket, is waited for."""


class Deadlock(RuntimeError):
    """Every task waits, and nothing is left that could wake one: no timer, no thread, no socket. The message says who waits where."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time begins at 0 and passes only while nothing can run. A `loop_factory` for asyncio and anyio."""

    def __init__(self) -> None:
        self._now = 0.0
        self._numbers = count()
        self._abroad = 0
        self._guards: list[_Guard] = []
        self._sockets = _Selector(self._idle)
        super().__init__(self._sockets)
        self.set_task_factory(self._task)

    def time(self) -> float:
        """Return virtual seconds since the loop began."""
        return self._now

    def wall(self) -> float:
        """Return virtual Unix seconds."""
        return EPOCH_S + self._now

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        """Call at a time; at infinity, which `anyio.sleep_forever` waits for, never: that is no timer."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raise `Deadlock` from here, in the task that runs this, instead of from the loop: what is entered inside is left in order."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - called from a coroutine
        guard = _Guard(task)
        self._guards.append(guard)
        try:
            yield
        except asyncio.CancelledError:
            if not guard.told:
                raise
            task.uncancel()
            raise Deadlock(guard.told) from None
        finally:
            if guard in self._guards:
                self._guards.remove(guard)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `func` in a thread; time waits for it, see above."""
        future = super().run_in_executor(executor, func, *args)
        self._abroad += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, _: object) -> None:
        self._abroad -= 1

    def _task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
        return _NumberedTask(coro, next(self._numbers), loop=loop, **options)

    def _idle(self, wait: Callable[[float | None], Ready], timeout: float | None) -> Ready:
        """Let time pass, or something from outside come, while nothing can run. Raises `Deadlock`."""
        ready = wait(0.0)
        if ready or timeout == 0.0:
            return ready
        if self._abroad or (timeout is None and self._has_outside()):
            ready = wait(PATIENCE_S)
        if ready:
            return ready
        if timeout is not None:
            self._now += timeout
        elif not self._abroad:
            self._deadlocked()
        return []

    def _has_outside(self) -> bool:
        """Tell whether threads or sockets are there that may wake a task; one socket is the loop's own."""
        return threading.active_count() > 1 or len(self._sockets.get_map()) > 1

    def _deadlocked(self) -> None:
        waiting = sorted(_place(task) for task in asyncio.all_tasks(self) if not task.done())
        told = "every task waits, and no timer is set that could wake one:\n  " + "\n  ".join(waiting)
        if not self._guards:
            raise Deadlock(told)
        guard = self._guards.pop()
        guard.told = told
        guard.task.cancel()


class _Guard:
    """A task that is to learn of a deadlock. `told` is what it learnt."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.told = ""


class _Selector(selectors.DefaultSelector):
    """Asks `idle` what to do when the loop waits."""

    def __init__(self, idle: Callable[[Callable[[float | None], Ready], float | None], Ready]) -> None:
        super().__init__()
        self._idle = idle

    def select(self, timeout: float | None = None) -> Ready:
        """Return what is ready."""
        return self._idle(super().select, timeout)


class _NumberedTask(asyncio.Task[T]):
    """A task whose place in a set depends on when it was made, and not on where in memory."""

    def __init__(self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


def wall_clock() -> Callable[[], float]:
    """Return the wall clock of the loop that runs: virtual on a `VirtualLoop`, else `time.time`. For whatever has a `clock=`."""
    loop = asyncio.get_running_loop()
    return loop.wall if isinstance(loop, VirtualLoop) else time.time


def _place(task: asyncio.Task[Any]) -> str:
    """Return a task's name, and where in its own code it waits: not in the library's."""
    frames = list(_frames(task.get_coro()))
    own = [frame for frame in frames if "/asyncio/" not in frame.f_code.co_filename and "/anyio/" not in frame.f_code.co_filename]
    if not frames:
        return task.get_name()
    frame = (own or frames)[-1]
    return f"{task.get_name()} at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _frames(awaited: Awaitable[Any] | Coroutine[Any, Any, Any] | Generator[Any, Any, Any] | None) -> Iterator[FrameType]:
    """Give the frames of a coroutine that waits, the innermost last."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None) or getattr(awaited, "ag_await", None)
