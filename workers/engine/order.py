"""From a message of the `run` log to an order for a domain, or to the reason why it is none."""

from __future__ import annotations

from datetime import datetime

import msgspec

from orchestrator.bus.port import Message
from orchestrator.protocol import domainxml, token
from orchestrator.protocol.command import HEADER_DEADLINE, HEADER_FENCE, Command, decode_command, id_of
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Routed, Subjects
from orchestrator.protocol.verb import XmlArgs, find
from workers.journal.port import Entry

FAR_S = 60.0
"""Deadline, in seconds from storage, of what could not be read."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger entry with its command, or with the reason why there is none."""

    entry: Entry
    command: Command | None
    refused: Invalid | None = None


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
        headers=dict(message.headers),
        deadline=message.time + FAR_S,
    )


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
        raise Invalid(f"header {HEADER_DEADLINE}: {given!r} is no RFC 3339 time") from error
    if moment.tzinfo is None:
        raise Invalid(f"header {HEADER_DEADLINE}: {given!r} has no zone; end it with Z")
    return moment.timestamp()


def _fence(message: Message) -> int:
    given = message.headers.get(HEADER_FENCE, "0")
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise Invalid(f"header {HEADER_FENCE}: {given!r} is no number")
    return int(given)
