"""Commands about what happens: events, what was refused, waiting for a state, what became of a command, and cancelling it."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import click

from orchestrator.cli import complete, render
from orchestrator.cli.questions import domain_argument
from orchestrator.cli.session import Session, unless_denied, with_client, with_session
from orchestrator.cli.settings import Command, Settings, reader_option
from orchestrator.protocol.domain import State
from orchestrator.protocol.verb import VERBS

if TYPE_CHECKING:
    from orchestrator.protocol.event import Event

_STATES = [*get_args(State), "gone"]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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


@click.command(cls=Command, short_help="follow events as they happen, or replay them")
@click.option("--domain", metavar="DOMAIN", help="Only of this domain: name or UUID.", shell_complete=complete.domains)
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", shell_complete=complete.kinds,
    help="Only these: lifecycle, lifecycle.started, command, …; repeatable.",
)
@click.option("--node", metavar="NODE", help="Only of this node.", shell_complete=complete.nodes)
@click.option("--since", callback=_since, metavar="TIME", help="Begin in the past: 90s, 15m, 2h, 1d ago, or an RFC 3339 time.")
@click.option("--follow/--no-follow", default=True, help="Go on until interrupted (default), or end with what is kept now.")
@click.pass_obj
def events(settings: Settings, /, follow: bool, since: float | None, **wanted: Any) -> None:
    """Follow events as they are stored, until interrupted.

    None is missed or shown twice, also when the broker restarts. Without --project: those of all projects, and of nodes themselves.
    With --no-follow: print those kept since --since, or all that are kept, and end.
    """

    def show(event: Event) -> None:
        render.show_each(settings.format, event, render.event)

    async def following(session: Session) -> None:
        async for event in session.client.events(every=settings.project is None, since=since, **wanted):
            show(event)

    async def replaying(session: Session) -> None:
        from orchestrator.cli.past import past  # noqa: PLC0415  not on the way of --help
        from orchestrator.feed import Wanted  # noqa: PLC0415  as above

        async for event in past(session, Wanted(project=settings.project, **wanted), since=since):
            show(event)

    body = following if follow else replaying
    with_session(settings, lambda session: unless_denied(session, lambda: body(session)))


events.params.append(reader_option())


@click.command(cls=Command, short_help="list what was refused as malformed")
@click.option("--since", callback=_since, metavar="TIME", help="Begin in the past: 90s, 15m, 2h, 1d ago, or an RFC 3339 time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="N", help="At most the last N.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until interrupted; with --since, from there on.")
@click.pass_obj
def invalid(settings: Settings, since: float | None, limit: int, follow: bool) -> None:
    """List messages that were no valid commands: when, in which project, on which subject, and what to mend.

    Without --project: of all projects, and those whose project could not be read, shown as _.
    """

    async def following(session: Session) -> None:
        from orchestrator.cli import refused  # noqa: PLC0415  not on the way of --help

        async for each in refused.coming(session, settings.project, since=since):
            render.show_each(settings.format, each, refused.Refused.line)

    async def listing(session: Session) -> None:
        from orchestrator.cli import refused  # noqa: PLC0415  not on the way of --help

        found = await refused.last(session, settings.project, since=since, limit=limit)
        render.show(settings.format, found, lambda found: render.columns(refused.HEAD, [each.row() for each in found]))

    body = following if follow else listing
    with_session(settings, lambda session: unless_denied(session, lambda: body(session)))


invalid.params.append(reader_option())


@click.command(cls=Command, name="wait", short_help="wait until a domain is in a state")
@domain_argument
@click.option(
    "--state", "states", type=click.Choice(_STATES), multiple=True, default=["running"], show_default=True, metavar="STATE",
    help=f"State to wait for; repeatable: any of them will do. One of {', '.join(_STATES)}; gone: until it is undefined.",
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="How long to wait (default: for ever).")
@click.pass_obj
def await_state(settings: Settings, domain: str, states: tuple[str, ...], timeout: float | None) -> None:
    """Wait until a domain is in a state, and show it then. DOMAIN is a name or UUID; one that is not there yet is waited for."""
    if "gone" in states and len(states) > 1:
        raise click.UsageError("--state gone goes with no other")
    wanted: Any = None if "gone" in states else states
    seen = with_client(settings, lambda client: client.wait(domain, state=wanted, timeout=timeout))
    render.show(settings.format, seen, lambda seen: f"{domain}: {'gone' if seen is None else f'{seen.state} on {seen.node}'}")


_of_domain = click.option(
    "--domain", metavar="DOMAIN", help="Its domain, which need not be searched for then.", shell_complete=complete.domains
)


@click.command(cls=Command, name="command", short_help=VERBS["command"].summary)
@click.argument("id", shell_complete=complete.commands)
@_of_domain
@click.pass_obj
def recorded(settings: Settings, id: str, domain: str | None) -> None:
    """Show what is recorded of the command ID."""
    render.show(settings.format, with_client(settings, lambda client: client.command(id, domain=domain)), render.fields)


@click.command(cls=Command, short_help="cancel a command that has not ended")
@click.argument("id", shell_complete=complete.commands)
@_of_domain
@click.pass_obj
def cancel(settings: Settings, id: str, domain: str | None) -> None:
    """Cancel the command ID: one that waits, or a job that can be aborted. What runs and cannot be aborted goes on."""
    result = with_client(settings, lambda client: client.cancel(id, domain=domain))
    render.show(settings.format, result, lambda result: render.result(result, id))


COMMANDS = (events, invalid, await_state, recorded, cancel)
