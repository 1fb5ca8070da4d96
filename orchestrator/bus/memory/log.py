"""One log in memory: the rules by which it takes, refuses and forgets messages. No I/O; `now` is told."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import islice, takewhile

from orchestrator.bus import header
from orchestrator.bus.memory.kept import Kept, stored_size, wire_size
from orchestrator.bus.memory.pattern import takes
from orchestrator.bus.port import Expect, Full, Headers, LogConfig, Message, Outgoing, Refused, Stale

_NEVER = float("inf")


class _Before:
    """What a batch has so far."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.subjects: set[str] = set()
        self.bytes = 0

    def add(self, message: Outgoing) -> None:
        self.ids.add(message.headers.get(header.MSG_ID, ""))
        self.subjects.add(message.subject)
        self.bytes += stored_size(message)


class MemoryLog:
    """One log. `stored` is told of each message that enters, markers too, after it is in."""

    def __init__(self, config: LogConfig, stored: Callable[[Message], None]) -> None:
        self.config = config
        self.last_sequence = max(config.first_sequence - 1, 0)
        self._stored = stored
        self._kept = Kept()
        self._ids: dict[str, tuple[int, float]] = {}
        self._ends: list[tuple[float, int]] = []

    def update(self, config: LogConfig) -> None:
        """Go on under another configuration; what exceeds it is forgotten, or expires by the new times."""
        self.config = config
        self._ends = [(end, message.sequence) for message in self._kept if (end := self._end(message)) < _NEVER]
        heapq.heapify(self._ends)
        for subject in self._kept.subjects():
            self._trim(subject, config.max_per_subject)

    def captures(self, subject: str) -> bool:
        """Tell whether messages on `subject` belong here."""
        return any(takes(subjects, subject) for subjects in self.config.subjects)

    # -- writing

    def append(self, message: Outgoing, expect: Expect | None, now: float) -> int:
        """Store a message and return its sequence, or that of the first with its id. Raises `Stale`, `Full`, `Refused`."""
        self.expire(now)
        self._check_size(message)
        self._check_ttl(message)
        self._check_fence(message, expect)
        known = self._known(message, now)
        if known is not None:
            return known
        self._check_rollup(message)
        self._check_room(stored_size(message))
        return self._store(message, now)

    def append_all(self, messages: Sequence[Outgoing], expect: Expect, now: float) -> int:
        """Store all messages or none; return the last one's sequence. Raises `Stale`, `Full`, `Refused`."""
        self.expire(now)
        if not self.config.atomic:
            raise Refused("atomic publish is disabled", 10174)
        self._check_size(messages[0])
        self._check_size(messages[-1])
        if not all(self.captures(message.subject) and self._fits(message) for message in messages):
            raise Refused("atomic publish batch is incomplete", 10176)
        before = _Before()
        for message in messages:
            self._check_member(message, before, expect, now)
            before.add(message)
        return [self._store(message, now) for message in messages][-1]

    def purge(self, subjects: str, up_to: int, now: float) -> int:
        """Remove messages under `subjects` with a sequence ≤ `up_to`; return how many."""
        self.expire(now)
        within = takewhile(lambda message: message.sequence <= up_to, self._kept)
        return self._forget([message.sequence for message in within if takes(subjects, message.subject)])

    def forget_ids(self) -> None:
        """Forget which ids were stored, as a broker may at a restart."""
        self._ids.clear()

    # -- reading

    def last(self, subjects: str, now: float) -> Message | None:
        """Return the last message under `subjects`, None if there is none."""
        self.expire(now)
        return self._kept.last(subjects)

    def read(self, sequence: int, subjects: str, limit: int, now: float) -> list[Message]:
        """Return the first `limit` messages under `subjects` at `sequence` or after it."""
        self.expire(now)
        return list(islice((message for message in self._kept.since(sequence) if takes(subjects, message.subject)), limit))

    def count(self, sequence: int, subjects: str) -> int:
        """Return how many messages under `subjects` are kept at `sequence` or after it."""
        return sum(takes(subjects, message.subject) for message in self._kept.since(sequence))

    def at(self, sequence: int) -> Message | None:
        """Return the message with this sequence if it is still kept."""
        return self._kept.at(sequence)

    def since(self, time: float) -> int:
        """Return the sequence of the first message stored at `time` or later, or the next one."""
        return next((message.sequence for message in self._kept if message.time >= time), self.last_sequence + 1)

    def lasts(self, subjects: str) -> list[int]:
        """Return the sequence of the last message of each subject under `subjects`, in order."""
        return self._kept.lasts(subjects)

    # -- time

    @property
    def next_end(self) -> float | None:
        """When the next message expires, Unix seconds; None if none does."""
        return self._ends[0][0] if self._ends else None

    def expire(self, now: float) -> None:
        """Forget what has reached its end, and leave markers where the log is to."""
        while self._ends and self._ends[0][0] <= now:
            gone = self._kept.remove(heapq.heappop(self._ends)[1])
            if gone is not None:
                self._mark(gone, now)

    def _mark(self, gone: Message, now: float) -> None:
        if not self.config.markers_s or self._kept.has(gone.subject) or header.is_marker(gone.headers):
            return
        headers = {header.MARKER: "MaxAge", header.TTL: f"{self.config.markers_s:.0f}s", header.ROLLUP: "sub"}
        self._store(Outgoing(gone.subject, b"", headers), now)

    def _end(self, message: Message) -> float:
        ttl = _ttl(message.headers)
        if ttl == _NEVER:
            return _NEVER
        age = self.config.max_age_s or _NEVER
        if ttl is None:
            return message.time + age
        if self.config.max_per_subject != 1:
            ttl = max(ttl, self.config.markers_s)  # so does the broker, or a marker could hide what was stored before
        return message.time + min(ttl, age)

    # -- what is refused; single messages and batches are looked at in the broker's own order

    def _check_member(self, message: Outgoing, before: _Before, expect: Expect, now: float) -> None:
        self._check_ttl(message)
        if message.headers.get(header.MSG_ID) in before.ids or self._known(message, now) is not None:
            raise Refused("atomic publish batch contains duplicate message id", 10201)
        self._check_fence(message, None if before.subjects else expect)
        self._check_rollup(message, first=message.subject not in before.subjects)
        self._check_room(before.bytes + stored_size(message))

    def _fits(self, message: Outgoing) -> bool:
        return self.config.max_message < 0 or wire_size(message) <= self.config.max_message

    def _check_size(self, message: Outgoing) -> None:
        if not self._fits(message):
            raise Refused("message size exceeds maximum allowed", 10054)

    def _check_ttl(self, message: Outgoing) -> None:
        if _ttl(message.headers) is not None and not self.config.markers_s:
            raise Refused("per-message TTL is disabled", 10166)

    def _check_rollup(self, message: Outgoing, *, first: bool = True) -> None:
        rollup = message.headers.get(header.ROLLUP)
        if rollup is not None and (rollup != "sub" or not self.config.max_per_subject or not first):
            raise Refused("rollup not permitted", 10111)

    def _check_fence(self, message: Outgoing, expect: Expect | None) -> None:
        if expect is None:
            return
        last = self._kept.last(expect.subjects or message.subject)
        sequence = 0 if last is None else last.sequence
        if sequence != expect.last:
            raise Stale(f"wrong last sequence: {sequence}", 10071)

    def _check_room(self, wanted: int) -> None:
        if self.config.discard_new and 0 <= self.config.max_bytes < self._kept.bytes + wanted:
            raise Full("maximum bytes exceeded", 10077)

    def _known(self, message: Outgoing, now: float) -> int | None:
        while self._ids:
            oldest = next(iter(self._ids))
            if self._ids[oldest][1] + self.config.duplicate_window_s > now:
                break
            del self._ids[oldest]
        known = self._ids.get(message.headers.get(header.MSG_ID, ""))
        return None if known is None else known[0]

    # -- what is kept

    def _store(self, message: Outgoing, now: float) -> int:
        self.last_sequence += 1
        kept = Message(message.subject, message.body, message.headers, sequence=self.last_sequence, time=now)
        self._kept.add(kept)
        if header.MSG_ID in kept.headers:
            self._ids[kept.headers[header.MSG_ID]] = (kept.sequence, now)
        end = self._end(kept)
        if end < _NEVER:
            heapq.heappush(self._ends, (end, kept.sequence))
        self._trim(kept.subject, 1 if header.ROLLUP in kept.headers else self.config.max_per_subject)
        self._stored(kept)
        return kept.sequence

    def _trim(self, subject: str, most: int) -> None:
        if most:
            self._forget(self._kept.beyond(subject, most))
        while not self.config.discard_new and 0 <= self.config.max_bytes < self._kept.bytes:
            self._forget([message.sequence for message in islice(self._kept, 1)])

    def _forget(self, sequences: Sequence[int]) -> int:
        for sequence in sequences:
            self._kept.remove(sequence)
        return len(sequences)


def _ttl(headers: Headers) -> float | None:
    """Return a message's own time to live in seconds, None if it has none of its own."""
    value = headers.get(header.TTL)
    if value is None:
        return None
    if value == "never":
        return _NEVER
    digits = value.removesuffix("s")
    if not (digits.isascii() and digits.isdigit() and int(digits) > 0):
        raise Refused("invalid per-message TTL", 10165)
    return float(digits)
