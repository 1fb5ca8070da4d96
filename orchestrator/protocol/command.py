"""Commands and their results (PROTOCOL §4): strict on the way in, exact on the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from orchestrator.protocol import codec, token
from orchestrator.protocol.domain import State
from orchestrator.protocol.error import Failure, Invalid, WireError
from orchestrator.protocol.verb import Args, Verb

HEADER_ID = "Virt-Id"
HEADER_DEADLINE = "Virt-Deadline"
HEADER_FENCE = "Virt-Fence"
HEADER_CMD = "Virt-Cmd"
HEADER_TRACEPARENT = "traceparent"
HEADER_TRACESTATE = "tracestate"
HEADER_ERROR = "Nats-Service-Error"
HEADER_ERROR_CODE = "Nats-Service-Error-Code"

MAX_TIMEOUT_S = 30 * 24 * 3600.0

MAX_TRACE = 512
"""Letters that `traceparent` and `tracestate` may each have: they travel on, into each event of the command (W3C Trace Context)."""

_SPACE = b" \t\r\n"


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What must hold at the head of the domain's queue, else `conflict` and nothing done."""

    state: State | None = None
    generation: int | None = None
    incarnation: str | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename={"condition": "if"}):
    """A command's body as it travels."""

    id: str | None = None
    args: dict[str, Any] = {}
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)] | None = None
    condition: Condition | None = None
    actor: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command that passed validation.

    id: the client's, or None where the receiver gives one. digest: the fingerprint of verb
    and body without the id, by which a repeat is told from another command under the same id.
    """

    verb: Verb
    id: str | None
    args: Args
    timeout_s: float
    condition: Condition | None
    actor: str | None
    digest: str


def decode_command(verb: Verb, raw: bytes, headers: Mapping[str, str]) -> Command:
    """Validate a command's body against its verb; raise `Invalid` and name the field where it does not fit."""
    if len(raw) > codec.MAX_COMMAND:
        raise Invalid(f"body has {len(raw)} bytes; a command may have {codec.MAX_COMMAND}")
    trace(headers)
    body = _body(raw) if raw.strip(_SPACE) else Body()
    args = _args(verb, body.args)
    if verb.kind == "control" and body.condition is not None:
        raise Invalid(f"if: {verb.name} acts out of turn, so there is no moment to judge it at; leave it out")
    return Command(
        verb=verb,
        id=given_id(body.id, headers),
        args=args,
        timeout_s=body.timeout_s or verb.timeout_s,
        condition=body.condition,
        actor=body.actor,
        digest=token.digest(
            verb.name.encode(),
            codec.canonical(args),
            codec.canonical(body.condition),
            codec.canonical(body.timeout_s),
        ),
    )


def trace(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the trace headers, which travel on as they are; raise `Invalid` where one is too long for that."""
    found = {name: headers[name] for name in (HEADER_TRACEPARENT, HEADER_TRACESTATE) if name in headers}
    for name, value in found.items():
        if len(value) > MAX_TRACE:
            raise Invalid(f"header {name}: {len(value)} letters; at most {MAX_TRACE} are accepted, or leave it out")
    return found


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the trace headers of a command that failed validation, none if they are at fault themselves; never raises."""
    try:
        return trace(headers)
    except Invalid:
        return {}


def given_id(in_body: str | None, headers: Mapping[str, str]) -> str | None:
    """Return the id that body or `Virt-Id` header gives, if any; raise `Invalid` if they differ or it is malformed.

    What a router passed on, told by its `Virt-Deadline`, may bear an id that the router gave it.
    """
    in_header = headers.get(HEADER_ID)
    if in_body is not None and in_header is not None and in_body != in_header:
        raise Invalid(f"id: the body says {in_body!r} and the header {HEADER_ID} {in_header!r}; give one, or the same")
    given = in_body if in_body is not None else in_header
    return None if given is None else token.command_id(given, own=in_body is None and HEADER_DEADLINE in headers)


def id_of(raw: bytes, headers: Mapping[str, str]) -> str | None:
    """Return the id of a command that failed validation, if one can be read and is well-formed; never raises."""
    try:
        body = msgspec.json.decode(raw) if raw.strip(_SPACE) else {}
        found = body.get("id") if isinstance(body, dict) else None
        return given_id(found if isinstance(found, str) else None, headers)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Invalid):
        return None


def _body(raw: bytes) -> Body:
    try:
        body = codec.decode(raw, Body)
    except Invalid as error:
        raise Invalid(f"{error.message}; send a JSON object with any of: {_fields(Body)}") from error
    codec.check_keys(raw)
    return body


def _args(verb: Verb, given: dict[str, Any]) -> Args:
    try:
        return codec.convert(given, verb.args, field="args")
    except Invalid as error:
        raise Invalid(f"{error.message}; {verb.name} takes {_fields(verb.args) or 'no arguments'}") from error


def _fields(kind: type[msgspec.Struct]) -> str:
    return ", ".join(kind.__struct_encode_fields__)


class DomainRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The domain that a result speaks of."""

    uuid: str
    name: str | None = None
    state: State | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a command ended: answer of `api`, message on `res`, `data` of the terminal event.

    changed: False where the goal held already. final: False where the answer ends only the waiting.
    cmd: sequence in `VIRT_CMD`, in coordinators' events. subject: as received, where it was malformed.
    """

    id: str
    verb: str
    ok: bool
    changed: bool | msgspec.UnsetType = msgspec.UNSET
    node: str
    project: str
    domain: DomainRef | None = None
    result: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    error: Failure | msgspec.UnsetType = msgspec.UNSET
    final: bool = True
    duration_ms: float
    cmd: int | msgspec.UnsetType = msgspec.UNSET
    subject: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def event(self) -> str:
        """Return the terminal event that tells this result."""
        if self.ok or self.error is msgspec.UNSET:
            return "command.succeeded"
        if self.error.code == "cancelled":
            return "command.cancelled"
        if self.error.code == "deadline" and self.error.outcome == "none":
            return "command.expired"
        return "command.failed"


def answer(result: dict[str, Any]) -> bytes:
    """Return the answer of a query or fleet verb: `{"result": …}`."""
    return codec.encode({"ok": True, "result": result})


def refusal(error: WireError, *, final: bool = True) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an answer that says no."""
    body: dict[str, Any] = {"ok": False, "error": error.failure()}
    if not final:
        body["final"] = False
    return codec.encode(body), error_headers(error.code, error.number)


def error_headers(code: str, number: int) -> dict[str, str]:
    """Return the NATS micro headers of a failure (ADR-32): the number as code, the code string as error."""
    return {HEADER_ERROR: code, HEADER_ERROR_CODE: str(number)}
