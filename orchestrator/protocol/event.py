"""Events: CloudEvents 1.0 in structured JSON (PROTOCOL §5)."""

from __future__ import annotations

from typing import Any

import msgspec

CONTENT_TYPE = "application/cloudevents+json"
ZERO = "0" * 16
"""`previous` of the first event of a domain in an epoch."""

TERMINAL = frozenset({"command.succeeded", "command.failed", "command.cancelled", "command.expired"})
"""The events that end a command."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as it stands in the log; attribute names are CloudEvents', all lower case.

    Terminal events of a worker say which order they end, so that a ledger can be rebuilt from them: commandsequence: its place
    in `VIRT_RUN`. commanddigest: the fingerprint of its domain, verb and arguments, by which a repeat is told from another command
    under the same id. commandfence: the owner epoch that it came with, if any.
    """

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    node: str
    project: str
    domainname: str | None = None
    epoch: str
    sequence: str
    previous: str
    incarnation: str | None = None
    commandid: str | None = None
    commandsequence: str | None = None
    commanddigest: str | None = None
    commandfence: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    synthetic: bool = False
    data: msgspec.Raw | dict[str, Any]

    @property
    def name(self) -> str:
        """Return the type without its prefix and version: `lifecycle.started`."""
        return self.type.split(".", 2)[2]


# omit_defaults would drop a field that equals its default, so the fixed ones are given by `event()` and have none.


def event(
    *,
    prefix: str,
    name: str,
    source: str,
    node: str,
    project: str,
    subject: str,
    time: str,
    epoch: str,
    sequence: int,
    previous: int,
    data: dict[str, Any] | msgspec.Raw,
    domainname: str | None = None,
    incarnation: str | None = None,
    commandid: str | None = None,
    commandsequence: int = 0,
    commanddigest: str | None = None,
    commandfence: int = 0,
    traceparent: str | None = None,
    tracestate: str | None = None,
    synthetic: bool = False,
) -> Event:
    """Return an event with all that follows from its parts filled in.

    `name` is `<event>[.<detail>]`; `sequence`, `previous`, `commandsequence` and `commandfence` are numbers from 1 (0: none).
    """
    digits = f"{sequence:016d}"
    return Event(
        specversion="1.0",
        id=f"{node}.{epoch}.{digits}",
        source=source,
        type=f"{prefix}.v1.{name}",
        subject=subject,
        time=time,
        datacontenttype="application/json",
        node=node,
        project=project,
        domainname=domainname,
        epoch=epoch,
        sequence=digits,
        previous=f"{previous:016d}",
        incarnation=incarnation,
        commandid=commandid,
        commandsequence=f"{commandsequence:016d}" if commandsequence else None,
        commanddigest=commanddigest,
        commandfence=str(commandfence) if commandfence else None,
        traceparent=traceparent,
        tracestate=tracestate,
        synthetic=synthetic,
        data=data,
    )


def worker_source(prefix: str, node: str) -> str:
    """Return the CloudEvents source of a worker."""
    return f"/{prefix}/nodes/{node}"


def coordinator_source(prefix: str, name: str) -> str:
    """Return the CloudEvents source of a coordinator."""
    return f"/{prefix}/coordinators/{name}"


def position(event_id: str) -> tuple[str, int]:
    """Return epoch and sequence of an event's id `<node>.<epoch>.<sequence>`."""
    _, epoch, sequence = event_id.rsplit(".", 2)
    return epoch, int(sequence)
