"""Commands that only read: nodes, domains, one domain, events, what is recorded of a command."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli import render, schemas
from orchestrator.cli.session import with_client
from orchestrator.cli.settings import Command, Settings
from orchestrator.protocol.verb import VERBS

if TYPE_CHECKING:
    from orchestrator.client import Client

T = TypeVar("T")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _show(settings: Settings, value: T, text: Callable[[T], str]) -> None:
    """Print an answer, as JSON where that is asked for."""
    if settings.json:
        render.document(value)
    else:
        render.say(text(value))


@click.command(cls=Command, short_help=VERBS["nodes"].summary)
@click.pass_obj
def nodes(settings: Settings) -> None:
    """List nodes: their hypervisors, domains and memory."""
    _show(settings, with_client(settings, lambda client: client.nodes()), render.nodes)


@click.command(cls=Command, short_help=VERBS["domains"].summary)
@click.option("--all", "every", is_flag=True, help="Of all projects; the broker must allow it.")
@click.pass_obj
def domains(settings: Settings, every: bool) -> None:
    """List a project's domains."""
    owner = None if every else settings.owner
    _show(settings, with_client(settings, lambda client: client.domains(owner)), render.domains)


@click.command(cls=Command, short_help=VERBS["get"].summary)
@click.argument("domain")
@click.pass_obj
def get(settings: Settings, domain: str) -> None:
    """Show a domain's observed state. DOMAIN is a name or UUID."""
    _show(settings, with_client(settings, lambda client: client.get(settings.owner, domain)), render.record)


@click.command(cls=Command, short_help=VERBS["xml"].summary)
@click.argument("domain")
@click.pass_obj
def xml(settings: Settings, domain: str) -> None:
    """Show a domain's XML, as its hypervisor has it. DOMAIN is a name or UUID."""
    found = with_client(settings, lambda client: client.xml(settings.owner, domain))
    _show(settings, {"xml": found}, lambda answer: answer["xml"].rstrip())


@click.command(cls=Command, short_help=VERBS["stats"].summary)
@click.argument("domain")
@click.pass_obj
def stats(settings: Settings, domain: str) -> None:
    """Show a domain's figures under libvirt's names. DOMAIN is a name or UUID."""
    _show(settings, with_client(settings, lambda client: client.stats(settings.owner, domain)), render.fields)


@click.command(cls=Command, name="command", short_help=VERBS["command"].summary)
@click.argument("id")
@click.option("--domain", metavar="DOMAIN", help="Its domain, which need not be searched for then.")
@click.pass_obj
def recorded(settings: Settings, id: str, domain: str | None) -> None:
    """Show what is recorded of the command ID."""
    _show(settings, with_client(settings, lambda client: client.command(settings.owner, id, domain=domain)), render.fields)


def _since(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Return the Unix second that `90s`, `15m`, `2h`, `1d` or an RFC 3339 time means; local time where it gives no zone."""
    if value is None:
        return None
    ago = re.fullmatch(r"(\d{1,9})([smhd])", value)
    if ago is not None:
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{value!r} is no time: use 90s, 15m, 2h, 1d, or 2026-01-31T12:00:00Z", context, parameter) from error


@click.command(cls=Command, short_help="follow events as they happen")
@click.option("--node", metavar="NODE", help="Only of this node.")
@click.option("--domain", metavar="DOMAIN", help="Only of this domain: name or UUID.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only these: lifecycle, lifecycle.started, command, …; repeatable.")
@click.option("--since", callback=_since, metavar="TIME", help="Begin in the past: 90s, 15m, 2h, 1d ago, or an RFC 3339 time.")
@click.option("--reader", metavar="NAME", default="", help="Name of the reader, where the broker allows only that.")
@click.pass_obj
def events(settings: Settings, /, reader: str, **wanted: Any) -> None:
    """Follow events as they are stored, until interrupted.

    None is missed or shown twice, also when the broker restarts. Without --project: those of all projects, and of nodes themselves.
    """

    async def follow(client: Client) -> None:
        async for event in client.events(project=settings.project, **wanted):
            _show(settings, event, render.event)

    with_client(settings, follow, reader=reader)


@click.command(cls=Command, short_help="print the JSON Schemas of the wire")
def schema() -> None:
    """Print one JSON document with the schemas of commands, results, events and records."""
    render.document(schemas.document())


COMMANDS = (nodes, domains, get, xml, stats, events, recorded, schema)
