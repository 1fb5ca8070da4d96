"""Parts of the reference as Markdown, each made from the code it speaks of."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import click

from orchestrator.bus.logs import buckets, logs
from orchestrator.cli import asyncapi, entry, schemas
from orchestrator.event import KINDS, Known, Said
from orchestrator.protocol.domain import State
from orchestrator.protocol.error import BY_CODE
from orchestrator.protocol.permission import Permissions, admin, client, coordinator, observer, worker
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import VERBS, Verb
from workers.drivers.libvirt import names

SUBJECTS = Subjects()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(words: Iterable[str]) -> str:
    """Return words of code, one after the other."""
    return " ".join(f"`{word}`" for word in words)


def verbs() -> str:
    """Return what changes a domain or acts on a command."""
    head = ("verb", "what it does", "begins in", "ends with", "seconds")
    asked = (verb for verb in VERBS.values() if verb.kind in ("verb", "control"))
    return table(head, (_changes(verb) for verb in asked))


def questions() -> str:
    """Return what only reads."""
    asked = [verb for verb in VERBS.values() if verb.kind in ("query", "fleet")]
    return table(("verb", "what it does", "of"), ((*_asked(verb), _scope(verb)) for verb in asked))


def _asked(verb: Verb) -> tuple[str, str]:
    properties = schemas.definitions("{name}")[verb.args.__name__]
    args = [f"`{name}`{'' if name in properties['required'] else '?'}" for name in properties["properties"]]
    return f"`{verb.name}`", f"{verb.summary}{': ' if args else ''}{', '.join(args)}"


def _changes(verb: Verb) -> tuple[str, ...]:
    ends = filter(None, (f"state `{verb.goal}`" if verb.goal else "", f"event `{verb.event}`" if verb.event else ""))
    return *_asked(verb), code(sorted(verb.from_states)) or "any state", ", ".join(ends), f"{verb.timeout_s:g}"


def _scope(verb: Verb) -> str:
    return "a domain" if verb.kind == "query" else "a project, or the fleet"


def states() -> str:
    """Return the states of a domain, with libvirt's reasons for each."""
    return table(("state", "reasons"), ((f"`{state}`", code(names.REASONS.get(state, ()))) for state in get_args(State)))


def kinds() -> str:
    """Return the kinds of events, with the class of each."""
    rows = ((f"`{name}`", f"`{kind.__name__}`", inspect.getdoc(kind) or "", _parts(kind)) for name, kind in KINDS.items())
    return table(("kind", "class", "meaning", "attributes"), rows)


def _parts(kind: type[Known]) -> str:
    return code(name for base in reversed(kind.__mro__) for name, part in vars(base).items() if isinstance(part, Said))


def lifecycle() -> str:
    """Return the details of `lifecycle`."""
    return table(("event", "`data.detail`"), ((f"`lifecycle.{name}`", code(names.DETAILS[name])) for name in names.LIFECYCLE))


def subjects() -> str:
    """Return every subject, once for all verbs."""
    channels = asyncapi.document()["channels"]
    told: dict[str, str] = {}
    for name, channel in channels.items():
        verb = name.partition("-")[2]
        if channel["address"] is not None:
            told.setdefault(channel["address"].replace(f".{verb}", ".{verb}") if verb else channel["address"], channel["description"])
    return table(("subject", "what it is"), ((f"`{address}`", text) for address, text in told.items()))


def parameters() -> str:
    """Return what may stand in a subject's places."""
    found = asyncapi.document()["components"]["parameters"]
    return table(("place", "what stands there"), ((f"`{{{name}}}`", one["description"]) for name, one in found.items()))


def streams() -> str:
    """Return the logs and buckets in the broker."""
    made = [*logs(SUBJECTS, created=0.0), *buckets(SUBJECTS)]
    rows = ((f"`{one.name}`", code(one.subjects), _kept(one.max_age_s, one.max_bytes, one.discard_new)) for one in made)
    return table(("stream", "captures", "keeps"), rows)


def _kept(age_s: float, size: int, refuses: bool) -> str:
    age = f"{age_s / 3600:g} h" if age_s >= 3600 else f"{age_s:g} s" if age_s else ""
    bound = f"{size // 1024 ** 2} MiB, then it {'refuses' if refuses else 'forgets its oldest'}" if size > 0 else ""
    return "; ".join(filter(None, (age, bound))) or "one message a key"


def errors() -> str:
    """Return the codes of failures."""
    head = ("code", "number", "exception", "meaning", "retryable")
    rows = (
        (f"`{name}`", str(kind.number), f"`{kind.__name__}`", inspect.getdoc(kind) or "", "yes" if kind.retryable else "")
        for name, kind in BY_CODE.items()
    )
    return table(head, rows)


def permissions() -> str:
    """Return what each kind of user may do, as NATS has it."""
    kinds: dict[str, Permissions] = {
        "a worker, `n1`": worker(SUBJECTS, "n1"),
        "a coordinator, `coordinator`": coordinator(SUBJECTS, "coordinator"),
        "a client, `web`, of the project `default`": client(SUBJECTS, "web", "default"),
        "an observer, `board`": observer(SUBJECTS, "board"),
        "an admin, `ops`": admin(SUBJECTS, "ops"),
    }
    return "\n\n".join(f"**{name}**\n\n```json\n{json.dumps(rights.entry(), indent=1)}\n```" for name, rights in kinds.items())


def structs() -> str:
    """Return every struct's fields."""
    return "\n\n".join(_struct(name, schema) for name, schema in schemas.definitions("{name}").items())


def _struct(name: str, schema: dict[str, Any]) -> str:
    rows = [(f"`{field}`", _kind(of), "yes" if field in schema["required"] else "") for field, of in schema["properties"].items()]
    return "\n\n".join((f"## {name}", schema["description"], table(("field", "type", "always there"), rows) if rows else "No fields."))


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"[{schema['$ref']}](#{schema['$ref'].lower()})"
    if "enum" in schema:
        return code(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return str(schema.get("type", "anything"))


def commands() -> str:
    """Return the command line: what holds for every command, then each command."""
    group = entry.group()
    context = click.Context(group, info_name="virtbus", **group.context_settings)
    general = dict(_records(group, context))
    helped = subprocess.run([sys.executable, "-m", "workers", "--help"], capture_output=True, text=True, check=True)
    first = f"## In general\n\n{_usage(group, context)}\n\n{_options(general)}"
    return "\n\n".join((first, *_below(group, context, general), f"## worker\n\n```text\n{helped.stdout}```"))


def _below(group: click.Group, context: click.Context, general: Mapping[str, str]) -> Iterator[str]:
    """Yield each command, and those below it, with what it takes beside `general`; the worker's options are not click's."""
    for name, command in group.commands.items():
        below = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield from _below(command, below, general)
        elif name != "worker":
            own = {option: text for option, text in _records(command, below) if option not in general}
            title = below.command_path.removeprefix("virtbus ")
            yield "\n\n".join((f"## {title}", _text(command), _usage(command, below), _options(own) if own else ""))


def _text(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def _usage(command: click.Command, context: click.Context) -> str:
    return f"`{command.get_usage(context).removeprefix('Usage: ')}`"


def _records(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield each option with its meaning; an argument is told by the usage."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield record[0], " ".join(record[1].split())


def _options(records: Mapping[str, str]) -> str:
    return table(("option", "meaning"), ((f"`{name}`", text) for name, text in records.items()))


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part
    for part in (commands, errors, kinds, lifecycle, parameters, permissions, questions, states, streams, structs, subjects, verbs)
}
