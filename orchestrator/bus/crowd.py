"""Many short tasks, one a request or a command: each costs a fifth of what a task of anyio's task group does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

import anyio

from orchestrator.log import get_logger

_log = get_logger()


class Crowd:
    """Tasks that end with the context: what still runs then is cancelled and waited for.

    They handle their own errors; one that escapes is logged, and ends that task alone.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._running:
            task.cancel()
        with anyio.CancelScope(shield=True):
            while self._running:
                await asyncio.wait(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` from the loop's next turn on."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task.failed", exc_info=error)
