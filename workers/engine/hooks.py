"""Calls into the program that embeds the worker: before a command begins, after it ended, and after each event.

- `on_command(CommandBegins)` is awaited before the command begins: nothing has been asked of the hypervisor when it is called.
- `on_event(Event)` is called once the event is in the log, in the log's order.
- `on_command(CommandEnded)` is called after `on_event` had its terminal event; also for what never began (refused, expired, cancelled).

Beginnings are called by the domain's own task, so of several domains at once; all the rest by one task, one at a time. What is told
before the worker could tell it is not told again at the next start, but for what was not yet in the log: who must miss nothing reads
that. A hook is a function or coroutine function. It has `HOOK_S` seconds, and a function that blocks holds up the loop. Whatever it
raises is logged and touches no command; nothing can be refused here, for that there are conditions and permissions.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import msgspec

from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.event import TERMINAL, Event
from workers.engine.outbox import Waiting
from workers.journal.port import Entry

HOOK_S = 1.0
"""Seconds after which a hook is cancelled, and a command that waits for it begins."""

MAX_WAITING = 10_000
"""Events that may wait for their hook; beyond that they are left out, and said so."""

log = get_logger()


class CommandBegins(msgspec.Struct, frozen=True, kw_only=True):
    """A command is about to begin. uuid: of its domain."""

    project: str
    id: str
    verb: str
    uuid: str


class CommandEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A command has ended, and its terminal event is in the log. uuid: `_` where the command was malformed."""

    project: str
    id: str
    verb: str
    uuid: str
    result: Result


OnEvent = Callable[[Event], Awaitable[None] | None]
OnCommand = Callable[[CommandBegins | CommandEnded], Awaitable[None] | None]


class Hooks:
    """The hooks of one worker, any of which may be missing."""

    def __init__(self, on_event: OnEvent | None = None, on_command: OnCommand | None = None) -> None:
        self._on_event = on_event
        self._on_command = on_command
        self._waiting: deque[Event] = deque()
        self._left_out = 0
        self._arrived = asyncio.Event()

    async def begins(self, entry: Entry) -> None:
        """Say that a command is about to begin, and return when the hook has, or its time is over."""
        if self._on_command is not None:
            await _call(self._on_command, CommandBegins(project=entry.project, id=entry.id, verb=entry.verb, uuid=entry.uuid))

    def stored(self, events: Sequence[Waiting]) -> None:
        """Take events that are in the log now."""
        if self._on_event is None and self._on_command is None:
            return
        for waiting in events:
            if len(self._waiting) >= MAX_WAITING:
                self._left_out += 1
            else:
                self._waiting.append(codec.decode(waiting.event.body, Event))
        self._arrived.set()

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._tell(self._waiting.popleft())
            if self._left_out:
                log.error("hook.left_out", events=self._left_out, reason="the hooks are slower than the events")
                self._left_out = 0

    async def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            await _call(self._on_event, event)
        if self._on_command is not None and event.name in TERMINAL:
            await _call(self._on_command, _ended(event))


def _ended(event: Event) -> CommandEnded:
    data = event.data if isinstance(event.data, msgspec.Raw) else codec.encode(event.data)
    result = codec.decode(bytes(data), Result)
    uuid = result.domain.uuid if result.domain is not None else "_"
    return CommandEnded(project=event.project, id=result.id, verb=result.verb, uuid=uuid, result=result)


async def _call(hook: Callable[[Any], Awaitable[None] | None], value: object) -> None:
    with anyio.move_on_after(HOOK_S) as scope:
        try:
            answer = hook(value)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            # The root of code that is not ours.
            log.exception("hook.failed", hook=getattr(hook, "__qualname__", repr(hook)), told=type(value).__name__)
    if scope.cancelled_caught:
        log.error("hook.too_slow", hook=getattr(hook, "__qualname__", repr(hook)), seconds=HOOK_S)
