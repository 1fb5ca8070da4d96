"""From a message of the `run` log to an order for a domain, or to the reason why it is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from orchestrator.bus.port import Message
from orchestrator.protocol import domainxml, token
from orchestrator.protocol.command import (
    HEADER_DEADLINE,
    HEADER_FENCE,
    HEADER_TRACEPARENT,
    HEADER_TRACESTATE,
    Command,
    decode_command,
    id_of,
    trace_of,
)
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Routed, Subjects
from orchestrator.protocol.verb import XmlArgs, find
from workers.engine.notice import Notice
from workers.journal.port import Entry

FAR_S = 60.0
"""Deadline, in seconds from storage, of what could not be read."""


Doubt = Literal["crash", "lost", "crowd"]
"""Why nobody knows what became of a command that may have begun. crash: the worker died at it. lost: the journal was lost, and
the domain has no other such command. crowd: the journal was lost, and other such commands may have changed the domain since."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger entry with its command, or with the reason why there is none. doubt: of one that has begun, or may have.

    notice: what was told of it before its end.
    """

    entry: Entry
    command: Command | None
    refused: Invalid | None = None
    doubt: Doubt = "crash"
    notice: Notice = msgspec.field(default_factory=Notice)


def read_order(message: Message, subjects: Subjects) -> Order:
    """Read a message of the `run` log or its push; never raises, what is wrong stands in `refused`."""
    routed = Routed("", NONE, NONE, "")
    try:
        routed = subjects.parse_routed(message.subject)
        verb = find(routed.verb, "verb", "control")
        project, uuid = token.project(routed.project), token.uuid(routed.domain)
        command = _with_complete_xml(decode_command(verb, message.body, message.headers), uuid)
        entry = _entry(message, subjects, routed.verb, project, uuid, command.id, command.digest)
        timed = {"deadline": _deadline(message, command.timeout_s), "fence": _fence(message)}
        return Order(entry=msgspec.structs.replace(entry, **timed), command=command)
    except Invalid as error:
        project = routed.project if token.is_word(routed.project) else NONE
        uuid = routed.domain.lower() if token.is_uuid(routed.domain) else NONE
        identity = id_of(message.body, message.headers) if project != NONE else None
        fingerprint = token.digest(message.subject.encode(), message.body)
        return Order(entry=_entry(message, subjects, routed.verb, project, uuid, identity, fingerprint), command=None, refused=error)


def own_id(sequence: int) -> str:
    """Return the id of a command that came without one."""
    return f"m-run-{sequence}"


def _entry(message: Message, subjects: Subjects, verb: str, project: str, uuid: str, identity: str | None, digest: str) -> Entry:
    return Entry(
        project=project,
        id=identity or own_id(message.sequence),
        sequence=message.sequence,
        subject=subjects.stored(message.subject),
        verb=verb,
        uuid=uuid,
        digest=token.digest(uuid.encode(), digest.encode()),
        body=message.body,
        headers=_kept(message.headers),
        deadline=message.time + FAR_S,
    )


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a command; trace headers only where they fit into the events that they would stand in."""
    others = {name: value for name, value in headers.items() if name not in (HEADER_TRACEPARENT, HEADER_TRACESTATE)}
    return others | trace_of(headers)


def _with_complete_xml(command: Command, uuid: str) -> Command:
    if not isinstance(command.args, XmlArgs):
        return command
    complete = domainxml.complete(command.args.xml, name=None, uuid=uuid)
    return msgspec.structs.replace(command, args=msgspec.structs.replace(command.args, xml=complete))


def _deadline(message: Message, timeout_s: float) -> float:
    given = message.headers.get(HEADER_DEADLINE)
    if given is None:
        return message.time + timeout_s
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise Invalid(f"header {HEADER_DEADLINE}: {given!r} is no RFC 3339 time; use the form 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        raise Invalid(f"header {HEADER_DEADLINE}: {given!r} has no zone; end it with Z")
    return moment.timestamp()


def _fence(message: Message) -> int:
    given = message.headers.get(HEADER_FENCE, "0")
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise Invalid(f"header {HEADER_FENCE}: {given!r} is no number; use an owner's epoch, or leave it out")
    return int(given)
