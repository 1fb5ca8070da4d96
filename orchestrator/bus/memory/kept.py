"""The messages that a log keeps: in order, by subject, and how large they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from orchestrator.bus.memory.pattern import is_literal, takes
from orchestrator.bus.port import Message, Outgoing

_RECORD = 30
"""Bytes of a message's record in the broker's file store, beside subject, headers and body."""


class Kept:
    """Messages under rising sequences."""

    def __init__(self) -> None:
        self.bytes = 0
        self._messages: dict[int, Message] = {}
        self._order: list[int] = []  # of all sequences, also of some that are gone: see `remove`
        self._subjects: dict[str, dict[int, None]] = {}

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def add(self, message: Message) -> None:
        """Keep a message; its sequence is higher than any before."""
        self._messages[message.sequence] = message
        self._order.append(message.sequence)
        self._subjects.setdefault(message.subject, {})[message.sequence] = None
        self.bytes += stored_size(message)

    def remove(self, sequence: int) -> Message | None:
        """Keep a message no longer; return it, None if it was gone already."""
        message = self._messages.pop(sequence, None)
        if message is None:
            return None
        self.bytes -= stored_size(message)
        of_subject = self._subjects[message.subject]
        del of_subject[sequence]
        if not of_subject:
            del self._subjects[message.subject]
        if len(self._order) > 2 * len(self._messages) + 64:
            self._order = list(self._messages)
        return message

    def at(self, sequence: int) -> Message | None:
        """Return the message with this sequence if it is kept."""
        return self._messages.get(sequence)

    def since(self, sequence: int) -> Iterator[Message]:
        """Iterate over messages from a sequence on."""
        for place in range(bisect_left(self._order, sequence), len(self._order)):
            message = self._messages.get(self._order[place])
            if message is not None:
                yield message

    def last(self, subjects: str) -> Message | None:
        """Return the newest message under a filter, None if there is none."""
        if is_literal(subjects):
            of_subject = self._subjects.get(subjects)
            return self._messages[next(reversed(of_subject))] if of_subject else None
        return next((message for message in reversed(self._messages.values()) if takes(subjects, message.subject)), None)

    def lasts(self, subjects: str) -> list[int]:
        """Return the sequence of the newest message of each subject under a filter, in order."""
        return sorted(next(reversed(of_subject)) for subject, of_subject in self._subjects.items() if takes(subjects, subject))

    def beyond(self, subject: str, most: int) -> list[int]:
        """Return the sequences of a subject's oldest messages, all but the newest `most`."""
        of_subject = self._subjects.get(subject, {})
        return list(of_subject)[: len(of_subject) - most] if len(of_subject) > most else []

    def has(self, subject: str) -> bool:
        """Tell whether a message of this subject is kept."""
        return subject in self._subjects

    def subjects(self) -> list[str]:
        """Return all subjects of which messages are kept."""
        return list(self._subjects)


def wire_size(message: Outgoing | Message) -> int:
    """Return the bytes of a message's headers and body."""
    if not message.headers:
        return len(message.body)
    return 12 + sum(len(name) + len(value) + 4 for name, value in message.headers.items()) + len(message.body)


def stored_size(message: Outgoing | Message) -> int:
    """Return the bytes that the broker's file store needs for a message."""
    return _RECORD + len(message.subject) + (4 if message.headers else 0) + wire_size(message)
