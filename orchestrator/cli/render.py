"""Values as lines for people, and as JSON or YAML for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.event import Event
from orchestrator.protocol.node import Node

_MIB = 1024
_COLOURS = {
    "running": "green", "online": "green", "succeeded": "green", "ok": "green",
    "paused": "yellow", "pmsuspended": "yellow", "blocked": "yellow", "shutdown": "yellow", "warn": "yellow",
    "crashed": "red", "unknown": "red", "offline": "red", "gone": "red", "failed": "red", "expired": "red", "fail": "red",
}

T = TypeVar("T")


def show(format: str, value: T, text: Callable[[T], str]) -> None:
    """Print a value in a format: `table` as `text` says it, `json` or `yaml` as it stands on the wire."""
    if format == "json":
        document(value)
    elif format == "yaml":
        say(_yaml(value))
    else:
        say(text(value))


def show_each(format: str, value: T, text: Callable[[T], str]) -> None:
    """Print one value of a series that has no end: a line, a document on a line, or a YAML document of its own."""
    if format == "yaml":
        say("---")
    show(format, value, text)


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


def on_terminal() -> bool:
    """Tell whether somebody looks at what is printed, on a screen whose cursor can be moved."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def painted(cell: str, padded: str) -> str:
    """Return a cell in the colour of what it says, where colours are wanted (https://no-color.org)."""
    colour = _COLOURS.get(cell.rpartition(".")[2])
    return click.style(padded, fg=colour) if colour and on_terminal() and not os.environ.get("NO_COLOR") else padded


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns are as wide as their widest cell."""
    table = [list(head), *([printable(cell) or "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(line(row, widths) for row in table)


def line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Return cells beside each other; what is longer than its column pushes the rest on."""
    *firsts, (last, _) = zip(row, widths, strict=True)
    return "  ".join([*(painted(cell, cell.ljust(width)) for cell, width in firsts), painted(last, last)])


def fields(values: Mapping[str, Any]) -> str:
    """Return one `name  value` line for each entry; what is no word or number stands as JSON."""
    width = max(map(len, values), default=0)
    return "\n".join(f"{name.ljust(width)}  {painted(str(value), _plain(value))}".rstrip() for name, value in values.items())


def record(of: msgspec.Struct) -> str:
    """Return a struct's fields as lines."""
    return fields(msgspec.to_builtins(of))


class Listed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node as lists show it. online: whether its lease lives, None where that may not be read."""

    node: Node
    online: bool | None

    def document(self) -> dict[str, Any]:
        """Return the node's record, and beside it whether it is online."""
        return {**msgspec.to_builtins(self.node), "online": self.online}


NODE_HEAD = ("NODE", "STATE", "HYPERVISORS", "DOMAINS", "CPUS", "FREE", "MEMORY", "SCHEDULABLE")
DOMAIN_HEAD = ("NAME", "STATE", "NODE", "VCPUS", "MEMORY", "UUID")


def nodes(found: Iterable[Listed]) -> str:
    """Return nodes as a table."""
    return columns(NODE_HEAD, map(node_row, found))


def node_row(of: Listed) -> tuple[str, ...]:
    """Return a node's cells under `NODE_HEAD`."""
    node = of.node
    state = "?" if of.online is None else "online" if of.online else "offline"
    hypervisors = " ".join(one.uri if one.connected else f"{one.uri}(lost)" for one in node.hypervisors)
    free, memory = f"{node.free_memory_kib // _MIB} MiB", f"{node.memory_kib // _MIB} MiB"
    return node.node, state, hypervisors, str(node.domain_count), str(node.cpus), free, memory, "yes" if node.schedulable else "no"


def domains(found: Iterable[Observed]) -> str:
    """Return domains as a table."""
    return columns(DOMAIN_HEAD, map(domain_row, found))


def domain_row(one: Observed) -> tuple[str, ...]:
    """Return a domain's cells under `DOMAIN_HEAD`."""
    return one.name, one.state, one.node, str(one.vcpus), f"{one.memory_kib // _MIB} MiB", one.uuid


def result(of: Result, asked: str) -> str:
    """Return how a command that succeeded ended, as one line; `asked` names the domain where the result does not."""
    domain = of.domain
    name = domain.name if domain is not None and domain.name else asked
    state = domain.state if domain is not None else None
    told = "nothing to do" if of.changed is False else "done"
    return printable(f"{of.verb} {name}: {told}{f', {state}' if state else ''} on {of.node}, {of.duration_ms:.0f} ms")


def event(of: Event) -> str:
    """Return an event as one line: time, node, project, domain, name, data."""
    cells = [printable(cell) for cell in (of.time, of.node, of.project, of.domainname or of.subject, of.name, _told(of))]
    return "  ".join(painted(cell, cell) if cell == of.name else cell for cell in cells).rstrip()


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


def _yaml(value: Any) -> str:
    import yaml  # noqa: PLC0415  only where it is asked for

    plain = msgspec.json.decode(codec.encode(value))  # what stands raw inside it, too
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1_000_000).removesuffix("\n...\n").rstrip("\n")
