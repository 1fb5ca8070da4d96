"""The AsyncAPI 3 document (PROTOCOL §8): channels from the subjects and the registry, messages from the structs.

Operations are told from this system's side: what it receives others send, what it sends others receive.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from orchestrator.bus.logs import BUCKETS
from orchestrator.cli import answers, schemas
from orchestrator.protocol import codec, command
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.error import BY_CODE
from orchestrator.protocol.event import CONTENT_TYPE
from orchestrator.protocol.node import Lease, Node
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import VERBS, CommandIdArgs, Verb

Json = dict[str, Any]

_SCHEMAS = "#/components/schemas"
_WORD = "1 to 63 of A-Z a-z 0-9 _ -"

_PARAMETERS: dict[str, str] = {
    "project": f"owner of the domain, the unit of authorisation: {_WORD}; `_` for what belongs to none",
    "node": f"name of a worker: {_WORD}; `_` for coordinators",
    "domain": "the domain's UUID, or its name where that is a token; `_` where the verb is about no domain",
    "uuid": "the domain's UUID, lower case; `_` where the event is about no domain",
    "id": "the command's id: 1 to 64 of A-Z a-z 0-9 _ -",
    "event": "name of the event, for some followed by a dot and its detail: `lifecycle.started`, `command.succeeded`",
}

_WAYS = {
    "api": "a request, answered with the end of what was asked",
    "cmd": "stored in the log of commands and routed from there; not answered",
    "run": "stored in the log of orders, for one node, past the coordinators; not answered",
    "ask": "a question to one node",
}

_RECORDS = {"nodes": Node, "leases": Lease, "domains": Observed, "owners": Owner}


def document(prefix: str = "virt") -> Json:
    """Return the document for an installation whose subjects begin with `prefix`. Raises `Invalid` if that is no token."""
    subjects = Subjects(prefix)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "virtbus",
            "version": version("virtbus"),
            "description": "Commands to virtual machines, their results, and the events of their hypervisors, on NATS with JetStream.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": dict(_channels(subjects)),
        "operations": dict(_operations()),
        "components": {
            "messages": dict(_messages()),
            "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
            "schemas": {**schemas.definitions(f"{_SCHEMAS}/{{name}}"), **dict(_bodies())},
        },
        "x-logs": {log: {"subjects": captured} for log, captured in _logs(subjects).items()},
        "x-buckets": {subjects.bucket(name): _schema_of(name) for name in BUCKETS},
    }


def _logs(subjects: Subjects) -> dict[str, str]:
    return {subjects.log_cmd: subjects.cmds, subjects.log_run: subjects.runs(), subjects.log_evt: subjects.events}


def _schema_of(bucket: str) -> Json:
    kind = _RECORDS.get(bucket)
    return {"value": _reference("schemas", kind.__name__)} if kind is not None else {}


def _ways(verb: Verb) -> tuple[str, ...]:
    """Return the families of subjects under which a verb may be asked for."""
    if verb.kind in ("verb", "control"):
        return ("api", "cmd", "run")
    # what is recorded of a command, each node knows for itself; lists are the coordinators'
    return ("api", "ask") if verb.kind == "query" or verb.args is CommandIdArgs else ("api",)


def _channels(subjects: Subjects) -> Iterator[tuple[str, Json]]:
    addresses = {
        "api": lambda verb: subjects.api("{project}", "{domain}", verb),
        "cmd": lambda verb: subjects.cmd("{project}", "{domain}", verb),
        "run": lambda verb: subjects.run("{node}", "{project}", "{uuid}", verb),
        "ask": lambda verb: subjects.ask("{node}", "{project}", "{domain}", verb),
    }
    for verb in VERBS.values():
        for way in _ways(verb):
            yield f"{way}-{verb.name}", _channel(addresses[way](verb.name), _WAYS[way], verb.name)
    yield "events", _channel(subjects.evt("{node}", "{project}", "{uuid}", "{event}"), f"the log {subjects.log_evt}", "event")
    yield "results", _channel(subjects.res("{node}", "{project}", "{id}"), "ends of commands, sent again for each repeat", "result")
    replies = ("result", "refusal", *map(_answer, answers.ANSWERS))
    yield "replies", _channel(None, "the reply subject of a request", *replies)


def _channel(address: str | None, text: str, *messages: str) -> Json:
    """Return a channel; the parameters are what stands in braces in its address."""
    named = [name for name in _PARAMETERS if address is not None and f"{{{name}}}" in address]
    channel: Json = {
        "address": address,
        "description": text,
        "messages": {name: _reference("messages", name) for name in messages},
    }
    return {**channel, "parameters": {name: _reference("parameters", name) for name in named}} if named else channel


def _operations() -> Iterator[tuple[str, Json]]:
    for verb in VERBS.values():
        for way in _ways(verb):
            channel = f"{way}-{verb.name}"
            operation: Json = {"action": "receive", "channel": {"$ref": f"#/channels/{channel}"}, "summary": verb.summary}
            if way in ("api", "ask"):
                replies = (_answer(verb.name) if verb.name in answers.ANSWERS else "result", "refusal")
                operation["reply"] = {
                    "channel": {"$ref": "#/channels/replies"},
                    "messages": [{"$ref": f"#/channels/replies/messages/{name}"} for name in replies],
                }
            yield channel, operation
    yield "events", {"action": "send", "channel": {"$ref": "#/channels/events"}, "summary": "tell what happened"}
    yield "results", {"action": "send", "channel": {"$ref": "#/channels/results"}, "summary": "tell how a command ended"}


def _answer(question: str) -> str:
    return f"{question}-answer"


def _messages() -> Iterator[tuple[str, Json]]:
    for verb in VERBS.values():
        yield verb.name, {"summary": verb.summary, "headers": _ASKING, "payload": _reference("schemas", _body(verb))}
    for name, kind in answers.ANSWERS.items():
        payload = _object({"ok": {"const": True}, "result": _reference("schemas", kind.__name__)}, "ok", "result")
        yield _answer(name), {"summary": f"what {name} is answered with", "payload": payload}
    yield "result", {"summary": "how a command ended", "headers": _FAILING, "payload": _reference("schemas", "Result")}
    yield "refusal", {"summary": "the answer is no", "headers": _FAILING, "payload": _reference("schemas", "Refusal")}
    yield "event", {
        "summary": "a CloudEvent",
        "contentType": CONTENT_TYPE,
        "headers": _object({"Nats-Msg-Id": {"type": "string", "description": "the event's id"}}),
        "payload": _reference("schemas", "Event"),
    }


def _body(verb: Verb) -> str:
    return f"{verb.args.__name__.removesuffix('Args')}Body"


def _bodies() -> Iterator[tuple[str, Json]]:
    """Yield the body for each kind of arguments: the common one, with `args` narrowed down."""
    for verb in VERBS.values():
        narrowed = _object({"args": _reference("schemas", verb.args.__name__)})
        text = f"A command's body, at most {codec.MAX_COMMAND} bytes; empty means all defaults."
        yield _body(verb), {"description": text, "allOf": [_reference("schemas", "Body"), narrowed]}


def _reference(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(properties: Json, *required: str) -> Json:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


_ASKING = _object(
    {
        command.HEADER_ID: {"type": "string", "description": "the command's id, where the body has none"},
        command.HEADER_TRACEPARENT: {"type": "string", "description": "W3C trace context"},
        command.HEADER_TRACESTATE: {"type": "string", "description": "W3C trace context"},
    }
)

_FAILING = _object(
    {
        command.HEADER_ERROR: {"enum": sorted(BY_CODE), "description": "the error's code; absent where all went well"},
        command.HEADER_ERROR_CODE: {"enum": sorted({str(kind.number) for kind in BY_CODE.values()}), "description": "its number"},
    }
)
