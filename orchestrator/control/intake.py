"""From a message on `api` or `cmd` to an order that can be routed, or to the reason why it is none (PROTOCOL §4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from orchestrator.protocol import codec, domainxml, token
from orchestrator.protocol.command import (
    HEADER_CMD,
    HEADER_DEADLINE,
    HEADER_FENCE,
    Body,
    Command,
    decode_command,
    id_of,
    trace_of,
)
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Addressed, Subjects
from orchestrator.protocol.verb import CommandIdArgs, XmlArgs, find

_OF_ROUTERS = (HEADER_DEADLINE, HEADER_FENCE, HEADER_CMD)
"""What only a router may say: from anybody else it means nothing."""


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of every command, well-formed or not.

    project, uuid: `_` where unknown. name: what the domain is called, as far as the command says.
    by_name: whether that is how it was addressed.
    given: whether the sender chose the id. received: broker time, Unix seconds. trace: headers that travel on.
    """

    subject: str
    project: str
    uuid: str
    name: str | None
    by_name: bool
    verb: str
    id: str
    given: bool
    digest: str
    received: float
    trace: Mapping[str, str]


class Order(Heading, frozen=True, kw_only=True):
    """A valid command. deadline: broker time, Unix seconds. body: as it travels on; the same for each repeat."""

    command: Command
    deadline: float
    body: bytes

    @property
    def creates(self) -> bool:
        """Whether it may bring a domain into being."""
        return self.command.verb.creates

    @property
    def target(self) -> str | None:
        """The id of the command that it is for, where it is for a command and not for a domain: it has no turn among the domain's."""
        return self.command.args.id if isinstance(self.command.args, CommandIdArgs) else None

    @property
    def wanted(self) -> XmlArgs:
        """The arguments of a command that creates."""
        assert isinstance(self.command.args, XmlArgs)  # noqa: S101  the registry's verbs that create take these
        return self.command.args


class Malformed(Heading, frozen=True, kw_only=True):
    """A command that cannot be routed, and why."""

    error: Invalid


def read(
    subjects: Subjects, subject: str, body: bytes, headers: Mapping[str, str], *, own_id: Callable[[], str], received: float
) -> Order | Malformed:
    """Read a message; `own_id` gives the id that it gets if it brings none. Never raises."""
    addressed = Addressed("", "", "")
    travelling = trace_of(headers)
    brought = {name: value for name, value in headers.items() if name not in _OF_ROUTERS}
    try:
        addressed = subjects.parse_addressed(subject)
        verb = find(addressed.verb, "verb", "control")
        nowhere = verb.kind == "control" and addressed.domain == NONE
        project, domain = token.project(addressed.project), NONE if nowhere else token.domain(addressed.domain)
        command = decode_command(verb, body, brought)
        id = command.id or own_id()
        by_name = not nowhere and not token.is_uuid(domain)
        uuid, name = (NONE, domain) if by_name else (domain, None)
        if isinstance(command.args, XmlArgs):
            uuid, name, command, body = _completed(command, command.args, project, id, uuid, name)
        return Order(
            subject=subject,
            project=project,
            uuid=uuid,
            name=name,
            by_name=by_name,
            verb=addressed.verb,
            id=id,
            given=command.id is not None,
            digest=command.digest,
            received=received,
            trace=travelling,
            command=command,
            deadline=received + command.timeout_s,
            body=body,
        )
    except Invalid as error:
        project = addressed.project if token.is_word(addressed.project) else NONE
        given = id_of(body, brought) if project != NONE else None
        return Malformed(
            subject=subject,
            project=project,
            uuid=addressed.domain.lower() if project != NONE and token.is_uuid(addressed.domain) else NONE,
            name=None,
            by_name=False,
            verb=addressed.verb,
            id=given or own_id(),
            given=given is not None,
            digest=token.digest(subject.encode(), body),
            received=received,
            trace=travelling,
            error=error,
        )


def _completed(
    command: Command, args: XmlArgs, project: str, id: str, uuid: str, name: str | None
) -> tuple[str, str | None, Command, bytes]:
    """Return UUID and name that the domain shall have, and command and body with both filled in."""
    said = domainxml.identify(args.xml)
    if uuid == NONE:
        uuid = said.uuid or token.derived_uuid(project, id)
    complete = msgspec.structs.replace(args, xml=domainxml.complete(args.xml, name=name, uuid=uuid))
    body = codec.encode(
        Body(
            args=msgspec.to_builtins(complete),
            timeout_s=command.timeout_s,
            condition=command.condition,
            actor=command.actor,
        )
    )
    if len(body) > codec.MAX_COMMAND:
        raise Invalid(f"args.xml: with name and UUID filled in the body has {len(body)} bytes; a command may have {codec.MAX_COMMAND}")
    return uuid, name or said.name, msgspec.structs.replace(command, args=complete), body
