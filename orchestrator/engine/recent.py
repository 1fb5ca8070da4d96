"""Commands seen of late, so that a repeat goes where the first went and is answered with the first's outcome.

Only a saving and a courtesy: the worker's ledger is what makes commands idempotent. Bounded; the oldest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict

import anyio

MAX_COMMANDS = 16_384
MAX_RESULT = 8 * 1024
"""Bytes of a result that is kept here; for a larger one the node is asked again."""


class Known:
    """What is known of one command.

    digest: of verb and body, None where only its result was heard. name: by which it was addressed, if it was.
    uuid: of its domain, None if not known. node: where it was routed, None if not yet.
    stored: whether that copy is known to be in the log. result: its outcome as JSON, None if not known.
    ending: held while a copy of it is ended here; None if none ever was.
    """

    __slots__ = ("digest", "ending", "name", "node", "result", "stored", "uuid")

    def __init__(self) -> None:
        self.digest: str | None = None
        self.name: str | None = None
        self.node: str | None = None
        self.uuid: str | None = None
        self.stored = False
        self.result: bytes | None = None
        self.ending: anyio.Lock | None = None


class Recent:
    """The record, by project and id."""

    def __init__(self, limit: int = MAX_COMMANDS) -> None:
        self._limit = limit
        self._commands: OrderedDict[tuple[str, str], Known] = OrderedDict()

    def find(self, project: str, id: str) -> Known | None:
        """Return what is known of a command, None if nothing."""
        return self._commands.get((project, id))

    def enter(self, project: str, id: str) -> Known:
        """Return the entry of a command, a new one if there was none."""
        known = self._commands.get((project, id))
        if known is None:
            known = self._commands[project, id] = Known()
            if len(self._commands) > self._limit:
                self._commands.popitem(last=False)
        return known

    def learn(self, node: str, project: str, id: str, result: bytes) -> None:
        """Keep a result as heard; the first one stays."""
        known = self.enter(project, id)
        if known.node is None:
            known.node = node
        if known.result is None and len(result) <= MAX_RESULT:
            known.result = result
