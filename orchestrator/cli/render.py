"""Values as lines for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.event import Event
from orchestrator.protocol.node import Node

_MIB = 1024


def document(value: Any) -> None:
    """Print `value` as one line of JSON."""
    click.echo(codec.encode(value))


def say(line: str) -> None:
    """Print a line for people."""
    click.echo(line)


def complain(sentence: str) -> None:
    """Print a sentence about what went wrong to stderr."""
    click.echo(printable(sentence), err=True)


def printable(text: str) -> str:
    """Return `text` as one line without control characters, which could come from a guest and steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns are as wide as their widest cell."""
    table = [list(head), *([printable(cell) or "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)


def fields(values: Mapping[str, Any]) -> str:
    """Return one `name  value` line for each entry; what is no word or number stands as JSON."""
    width = max(map(len, values), default=0)
    return "\n".join(f"{name.ljust(width)}  {_plain(value)}".rstrip() for name, value in values.items())


def record(of: msgspec.Struct) -> str:
    """Return a struct's fields as lines."""
    return fields(msgspec.to_builtins(of))


def nodes(found: Sequence[Node]) -> str:
    """Return nodes as a table."""
    head = ("NODE", "HYPERVISORS", "DOMAINS", "CPUS", "FREE", "MEMORY", "SCHEDULABLE")
    return columns(head, (_node(node) for node in found))


def _node(node: Node) -> tuple[str, ...]:
    hypervisors = " ".join(one.uri if one.connected else f"{one.uri}(lost)" for one in node.hypervisors)
    free, memory = f"{node.free_memory_kib // _MIB} MiB", f"{node.memory_kib // _MIB} MiB"
    return node.node, hypervisors, str(node.domain_count), str(node.cpus), free, memory, "yes" if node.schedulable else "no"


def domains(found: Sequence[Observed]) -> str:
    """Return domains as a table."""
    head = ("NAME", "STATE", "NODE", "VCPUS", "MEMORY", "UUID")
    return columns(head, ((one.name, one.state, one.node, str(one.vcpus), f"{one.memory_kib // _MIB} MiB", one.uuid) for one in found))


def result(of: Result, asked: str) -> str:
    """Return how a command that succeeded ended, as one line; `asked` names the domain where the result does not."""
    domain = of.domain
    name = domain.name if domain is not None and domain.name else asked
    state = domain.state if domain is not None else None
    told = "nothing to do" if of.changed is False else "done"
    return printable(f"{of.verb} {name}: {told}{f', {state}' if state else ''} on {of.node}, {of.duration_ms:.0f} ms")


def event(of: Event) -> str:
    """Return an event as one line: time, node, project, domain, name, data."""
    who = of.domainname or of.subject
    return printable(f"{of.time}  {of.node}  {of.project}  {who}  {of.name}  {_told(of)}".rstrip())


def _told(of: Event) -> str:
    """Return what an event says beyond its name: of a command how it ended, else its data as far as they are plain."""
    data = msgspec.json.decode(of.data) if isinstance(of.data, msgspec.Raw) else of.data
    if not isinstance(data, dict):
        return _plain(data)
    if of.name.startswith("command."):
        data = {"verb": data.get("verb"), "id": data.get("id"), "error": (data.get("error") or {}).get("message")}
    return " ".join(f"{name}={_plain(value)}" for name, value in data.items() if value is not None)


def _plain(value: Any) -> str:
    return printable(value) if isinstance(value, str) else codec.encode(value).decode()

