"""Who sees all: what is stored, committed, called and answered, with the trace that a failure is told by."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, MutableMapping
from typing import Any

import structlog

from orchestrator.bus.port import Message
from orchestrator.protocol import codec
from orchestrator.protocol.subject import Subjects
from tests.simulation.laws import EventLaw, Key, LedgerLaw, RecordLaw, ResultLaw
from tests.simulation.loop import PART
from tests.simulation.plan import Sending
from workers.journal.memory import Contents, MemoryDisk
from workers.journal.port import Change

SUBJECTS = Subjects()
DRAWN = frozenset({"watcher"})
"""Fields of log lines that the system draws without us: names of readers."""

LINES = 400
"""Lines of the trace that are kept; all of them if it is asked for."""


class Broken(AssertionError):
    """A law was broken; the message says which, when and by what."""


class Witness:
    """Takes what happens, keeps its trace, and puts it to the laws; the first that is broken counts."""

    def __init__(
        self, clock: Callable[[], float], now: Callable[[], float], reused: Collection[Key] = (), *, whole: bool = False
    ) -> None:
        """`clock` gives broker time, `now` the seconds since the beginning. reused: ids of several commands. whole: keep all the trace."""
        self._now = now
        self.trace: deque[str] = deque(maxlen=None if whole else LINES)
        self.broken: list[str] = []
        self.dying: set[str] = set()
        self.cmd: list[Message] = []
        self.run: list[Message] = []
        self.answers: list[tuple[Sending, dict[str, Any]]] = []
        self.events = EventLaw(self.breach, reused)
        self.ledger = LedgerLaw(self.breach, clock)
        self.records = RecordLaw(self.breach)
        self.results = ResultLaw(self.breach, self.events)

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self._now():9.4f} {what}")

    def breach(self, what: str) -> None:
        """Note that a law was broken."""
        self.note(f"BROKEN: {what}")
        self.broken.append(f"at {self._now():.4f} s: {what}")

    def check(self) -> None:
        """Raise `Broken` if a law was."""
        if self.broken:
            raise Broken(self.broken[0])

    def stored(self, message: Message) -> None:
        """Take a message that a log has stored."""
        kind, rest = message.subject.split(".", 3)[2:] if message.subject.startswith("virt.") else ("kv", message.subject)
        if kind == "kv":
            self.records.stored(message)
            return
        self.note(f"{kind} {rest} #{message.sequence % 1_000_000} {_short(message)}")
        if kind == "evt":
            self.events.stored(message)
        elif kind == "run":
            self.run.append(message)
            self.records.routed(message)
        elif kind == "cmd":
            self.cmd.append(message)

    def result(self, message: Message) -> None:
        """Take what is said on `res`."""
        self.results.said(message)

    def journal(self, node: str, change: Change, contents: Contents) -> None:
        """Take a change that is about to be safe in a node's journal."""
        line = self.ledger.change(node, change, contents)
        if line:
            self.note(f"{node} {line}")

    def effect(self, node: str, verb: str, step: str, uuid: str) -> None:
        """Take that a call has had its effect."""
        self.note(f"{node} does {step} for {verb} of {uuid}")
        self.ledger.effect(node, verb, step, uuid)

    def meddled(self, node: str, act: str, uuid: str) -> None:
        """Take that somebody else did something to a domain."""
        self.note(f"somebody {act} {uuid} on {node}")
        self.ledger.meddled(node, uuid)

    def answered(self, sending: Sending, body: bytes) -> None:
        """Take the answer to a request."""
        answer = codec.decode(body, dict)
        self.note(f"answer to {sending.id}: {body.decode()[:160]}")
        self.answers.append((sending, answer))

    def log_line(self, _: object, method: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Take a line of the system's own logs; an error there breaks a law, unless it is somebody's last breath."""
        part = PART.get()
        said = " ".join(f"{key}={value}" for key, value in fields.items() if key not in DRAWN)
        self.note(f"{part or 'somebody'} logs {method} {said}")
        if method in ("error", "exception", "critical") and part not in self.dying:
            self.breach(f"{part} logs an error: {said} {fields.get('exc_info')!r}")
        raise structlog.DropEvent


class WitnessedDisk(MemoryDisk):
    """A journal's disk, with somebody who sees each change that becomes safe."""

    def __init__(self, node: str, witness: Witness) -> None:
        super().__init__()
        self.contents = _Witnessed(node, witness)


class _Witnessed(Contents):
    def __init__(self, node: str, witness: Witness) -> None:
        super().__init__()
        self._node = node
        self._witness = witness

    def apply(self, change: Change) -> None:
        """Show it, then let it have happened."""
        self._witness.journal(self._node, change, self)
        super().apply(change)


def _short(message: Message) -> str:
    body = message.body.decode(errors="replace")
    if ".command." in message.subject:
        data = codec.decode(message.body, dict)["data"]
        return " ".join(f"{key}={data[key]}" for key in ("id", "verb", "ok", "changed", "outcome", "error") if key in data)
    return body[:110]
