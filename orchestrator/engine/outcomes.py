"""Waiting for the end of a command: by its result, or by its terminal event in the log, whichever comes first (PROTOCOL §4).

A waiter is armed before its command is published. Results come as plain messages and may be missed, so whoever has heard
nothing for a while, and everybody after a reconnect, is looked up in the log of events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import msgspec
from anyio.abc import TaskStatus

from orchestrator.bus.port import Bus, BusError, Message, Start
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.history import History, Terminal
from orchestrator.engine.recent import Recent
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Subjects

SLACK_S = 5.0
"""Seconds by which clocks and logs may disagree on when a command began."""

_LONGEST_S = 30.0
"""Seconds between two look-ups of one waiter, at most."""

_log = get_logger()

ANY = "*"
"""A waiter's node where any may end the command."""

Key = tuple[str, str]
"""Project, id."""


class _Told(msgspec.Struct, frozen=True):
    """The part of a result that tells one command from another."""

    verb: str = ""


class Waiter:
    """Somebody who waits for a command that a node ends, or a coordinator.

    `since`: broker time before which it cannot have ended, unless it is a repeat. `verb`: what it was, '' if that is not known:
    the first command of its id may have been another one.
    """

    def __init__(self, outcomes: Outcomes, node: str, project: str, uuid: str, id: str, since: float, verb: str) -> None:
        self.domain = node, project, uuid
        self.ids = [id]
        self.verb = verb
        self.result: bytes | None = None
        self.start = Start(time=since - SLACK_S)
        self.looked = 0
        self.due = 0.0
        self._outcomes = outcomes
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ended(self, within_s: float | None = None) -> bytes | None:
        """Wait for the command's end and return its result as JSON, None if `within_s` seconds went by without one."""
        alarm = None if within_s is None else asyncio.get_running_loop().call_later(within_s, self._wake)
        try:
            await self._ended
        finally:
            if alarm is not None:
                alarm.cancel()
        return self.result

    def _wake(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def also(self, id: str) -> None:
        """Accept a result under another id too: the one that the worker gives a copy whose own id is taken."""
        self._outcomes.also(self, id)

    def offer(self, node: str, result: bytes) -> None:
        """Let it go with a result that `node` gave, if that is who may; the first one counts."""
        if self.result is None and (node in (self.domain[0], NONE) or self.domain[0] == ANY) and self.verb in ("", _verb(result)):
            self.result = result
            self._wake()


class Outcomes:
    """All waiters of a coordinator. Run it as long as there are any."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        history: History,
        recent: Recent,
        backlog: Backlog,
        *,
        look_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        """Hear results on `bus`; a waiter that got none for `look_s` seconds is looked up in `history`."""
        self._bus = bus
        self._subjects = subjects
        self._history = history
        self._recent = recent
        self._backlog = backlog
        self._look_s = look_s
        self._monotonic = monotonic
        self._waiters: dict[Key, list[Waiter]] = {}
        self._hurry = asyncio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen and look for ever; started once results are heard."""
        async with self._bus.listen(self._subjects.results, self._heard), anyio.create_task_group() as tasks:
            tasks.start_soon(self._hurry_after_reconnects)
            task_status.started()
            while True:
                with anyio.move_on_after(self._look_s / 4):
                    await self._hurry.wait()
                self._hurry.clear()
                await self._look(self._due())

    @contextmanager
    def waiter(self, node: str, project: str, uuid: str, id: str, *, since: float, verb: str = "") -> Iterator[Waiter]:
        """Arm a waiter for as long as the context lasts."""
        waiter = Waiter(self, node, project, uuid, id, since, verb)
        waiter.due = self._monotonic() + self._look_s
        self._waiters.setdefault((project, id), []).append(waiter)
        try:
            yield waiter
        finally:
            for each in waiter.ids:
                self._drop((project, each), waiter)

    def also(self, waiter: Waiter, id: str) -> None:
        """Let a waiter accept a second id."""
        project = waiter.domain[1]
        waiter.ids.append(id)
        self._waiters.setdefault((project, id), []).append(waiter)
        known = self._recent.find(project, id)
        if known is not None and known.node is not None and known.result is not None:
            waiter.offer(known.node, known.result)

    def _drop(self, key: Key, waiter: Waiter) -> None:
        waiting = self._waiters[key]
        waiting.remove(waiter)
        if not waiting:
            del self._waiters[key]

    def _heard(self, message: Message) -> None:
        try:
            node, project, id = self._subjects.parse_result(message.subject)
        except Invalid:
            return  # nobody waits under such a subject
        if b'"final":false' in message.body:
            return  # an answer to one message, not the command's end
        self._ended(node, project, id, message.body)

    def _ended(self, node: str, project: str, id: str, result: bytes) -> None:
        self._recent.learn(node, project, id, result)
        self._backlog.ended(node, project, id)
        for waiter in self._waiters.get((project, id), ()):
            waiter.offer(node, result)

    async def _hurry_after_reconnects(self) -> None:
        session = await self._bus.link.up()
        while True:
            session = await self._bus.link.up(after=session)
            for waiting in self._waiters.values():
                for waiter in waiting:
                    waiter.due = 0.0
            self._hurry.set()

    def _due(self) -> dict[tuple[str, str, str], list[Waiter]]:
        """Return who is to be looked up, by node, project and UUID."""
        now = self._monotonic()
        due: dict[tuple[str, str, str], list[Waiter]] = {}
        for waiting in self._waiters.values():
            for waiter in waiting:
                if waiter.result is None and waiter.due <= now:
                    due.setdefault(waiter.domain, []).append(waiter)
        return due

    async def _look(self, due: dict[tuple[str, str, str], list[Waiter]]) -> None:
        for (node, project, uuid), waiters in due.items():
            try:
                # in two parts, since a waiter's first look goes no further back than its command, and the second as far as can be
                for start in {waiter.start: None for waiter in waiters}:
                    found = await self._history.terminals(node, project, uuid, start)
                    for terminal in found:
                        if (project, terminal.id) in self._waiters:
                            self._ended(terminal.node, project, terminal.id, terminal.result)
                    self._looked([waiter for waiter in waiters if waiter.start == start], start, found)
            except BusError as error:
                _log.info("outcomes.look_failed", node=node, domain=uuid, reason=str(error) or type(error).__name__)
                return

    def _looked(self, waiters: list[Waiter], start: Start, found: list[Terminal]) -> None:
        now = self._monotonic()
        for waiter in waiters:
            waiter.looked += 1
            waiter.due = now + min(self._look_s * 2**waiter.looked, _LONGEST_S)
            if waiter.looked == 1:
                waiter.start = Start(time=self._history.oldest)  # it may be the repeat of one that ended long ago
            elif found:
                waiter.start = Start(sequence=found[-1].sequence + 1)
            else:
                waiter.start = start


def _verb(result: bytes) -> str:
    try:
        return codec.decode(result, _Told).verb
    except Invalid:
        return ""  # somebody else's words under one of our subjects
