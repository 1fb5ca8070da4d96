"""Calls that may hang on a loop beside which nothing runs: either the loop goes on or one call, never both.

So a hypervisor can hang in the middle of a call, and what happens still happens in one order.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from workers.engine.lane import InlineLane

T = TypeVar("T")


class Strand(threading.Thread):
    """A thread that runs only while whoever resumes it stands still, until it pauses or ends."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(name="strand", daemon=True)
        self._call = call
        self._turn, self._turn_back = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def resume(self) -> None:
        """Let it run; return once it pauses or has ended."""
        self._turn.release()
        self._turn_back.acquire()

    def pause(self) -> None:
        """Wait, in this thread, to be resumed."""
        self._turn_back.release()
        self._turn.acquire()

    def run(self) -> None:
        """Call, in turn."""
        self._turn.acquire()
        try:
            self._call()
        finally:
            self._turn_back.release()


class SteppedLane(InlineLane):
    """A lane that runs calls at once on the loop, and on a strand those that may hang, as `may_hang` says."""

    def __init__(self, may_hang: Callable[[], bool]) -> None:
        self._may_hang = may_hang
        self.active = 0

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run `call` until it has returned or hangs."""
        if not self._may_hang():
            return super().submit(call)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def carry_out() -> None:
            result: T | None = None
            error: Exception | None = None
            try:
                result = call()
            except Exception as raised:  # noqa: BLE001 - handed to the waiter
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._finish, future, result, error)

        self.active += 1
        Strand(carry_out).resume()
        return future

    def _finish(self, future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        self.active -= 1
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
