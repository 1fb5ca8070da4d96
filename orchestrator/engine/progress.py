"""How far the leader has come in the three logs, told so that a successor overlooks nothing (PROTOCOL §3, coordinator).

A command of `VIRT_CMD` is finished once it lies in `VIRT_RUN` or its terminal event in `VIRT_EVT`. The position says of `cmd`:
all up to here are finished; of `run` and `evt`: whatever was made of a later command lies above. A successor that finds a
command there takes it as done, and routes all others.

When a command begins, every sequence known of a log is below what will be made of it. So the position of the oldest unfinished
command is what was known when it began.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import msgspec

MANY = 500
"""Finished commands after which the position is worth storing before its time."""


class Position(msgspec.Struct, frozen=True):
    """Sequences reached in `VIRT_CMD`, `VIRT_RUN`, `VIRT_EVT`."""

    cmd: int
    run: int
    evt: int


class Progress:
    """One term's way through the logs.

    begun_at: where the term before came to. done: commands above it that were found finished, with their ids.
    run, evt: ends of the logs as they were when those were looked for.
    """

    def __init__(self, begun_at: Position, done: Mapping[int, str], run: int, evt: int) -> None:
        self.begun_at = begun_at
        self._done = dict(done)
        self._last_done = max(done, default=0)
        self._read = begun_at.cmd
        self._run = max(run, begun_at.run)
        self._evt = max(evt, begun_at.evt)
        self._unfinished: dict[int, Position] = {}
        self._finished = 0
        self._many = anyio.Event()

    def is_done(self, cmd: int, *ids: str) -> bool:
        """Tell whether the term before finished a command, under one of `ids`; asked once of each, in order."""
        return self._done.pop(cmd, None) in ids

    def note(self, run: int, evt: int) -> None:
        """Take note of sequences that are given away in the logs."""
        self._run = max(self._run, run)
        self._evt = max(self._evt, evt)

    def begin(self, cmd: int) -> None:
        """Take note that a command was read, in order."""
        self._unfinished[cmd] = Position(cmd - 1, *self._known(cmd))
        self._read = cmd

    def finish(self, cmd: int) -> None:
        """Take note that a command is finished, in any order; idempotent."""
        if self._unfinished.pop(cmd, None) is None:
            return
        self._finished += 1
        if self._finished >= MANY:
            self._many.set()

    def skip(self, cmd: int) -> None:
        """Take note that a command was read that was done already."""
        self._read = cmd

    @property
    def position(self) -> Position:
        """What may be stored now."""
        for oldest in self._unfinished.values():
            return oldest
        return Position(self._read, *self._known(self._read + 1))

    async def many(self) -> None:
        """Wait until many commands were finished since the last such wait."""
        await self._many.wait()
        self._finished = 0
        self._many = anyio.Event()

    def _known(self, cmd: int) -> tuple[int, int]:
        # What the term before made of commands up to its last lies anywhere above where that began.
        if cmd <= self._last_done:
            return self.begun_at.run, self.begun_at.evt
        return self._run, self._evt
