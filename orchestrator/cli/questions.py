"""Commands that show how things are: nodes, domains, one domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli import complete, render
from orchestrator.cli.session import Session, unless_denied, with_client, with_session
from orchestrator.cli.settings import Command, Settings, reader_option
from orchestrator.protocol.verb import VERBS

if TYPE_CHECKING:
    from orchestrator.cli.live import Display, Picture
    from orchestrator.protocol.domain import Observed

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_quiet = click.option("-q", "--quiet", "names_only", is_flag=True, help="Print names only, one a line.")
_watch = click.option("--watch", is_flag=True, help="Go on showing what changes, until interrupted.")


def domain_argument(command: F) -> F:
    """Give a command the argument DOMAIN, which a shell can complete."""
    return click.argument("domain", shell_complete=complete.domains)(command)


def _reading(command: click.Command) -> click.Command:
    command.params.append(reader_option())
    return command


@_reading
@click.command(cls=Command, short_help=VERBS["nodes"].summary)
@_quiet
@_watch
@click.pass_obj
def nodes(settings: Settings, names_only: bool, watch: bool) -> None:
    """List nodes: whether they are online, their hypervisors, domains and memory."""
    _check(names_only, watch)

    async def listed(session: Session) -> list[render.Listed]:
        from orchestrator.cli import live  # noqa: PLC0415  not on the way of --help

        found = await unless_denied(session, session.client.nodes)
        online = frozenset[str]() if names_only else await live.online(session)
        return [render.Listed(node=node, online=None if online is None else node.node in online) for node in found]

    async def watched(session: Session) -> None:
        from orchestrator.cli import live  # noqa: PLC0415  not on the way of --help

        await live.nodes(session, _display(settings, _nodes_picture()))

    if watch:
        with_session(settings, watched)
    else:
        found = with_session(settings, listed)
        _show_list(settings, [each.document() for each in found], render.nodes(found), names_only and [each.node.node for each in found])


@_reading
@click.command(cls=Command, short_help=VERBS["domains"].summary)
@click.option("--all", "every", is_flag=True, help="Of all projects; the broker must allow it.")
@_quiet
@_watch
@click.pass_obj
def domains(settings: Settings, every: bool, names_only: bool, watch: bool) -> None:
    """List a project's domains."""
    _check(names_only, watch)

    async def watched(session: Session) -> None:
        from orchestrator.cli import live  # noqa: PLC0415  not on the way of --help

        await live.domains(session, _display(settings, _domains_picture(render.domains)), ">" if every else f"*.{settings.owner}.*")

    if watch:
        with_session(settings, watched)
    else:
        found = with_client(settings, lambda client: client.domains(every=every))
        found.sort(key=lambda one: (one.project, one.name, one.uuid))
        _show_list(settings, found, render.domains(found), names_only and [one.name for one in found])


@_reading
@click.command(cls=Command, short_help=VERBS["get"].summary)
@domain_argument
@_watch
@click.pass_obj
def get(settings: Settings, domain: str, watch: bool) -> None:
    """Show a domain's observed state. DOMAIN is a name or UUID."""

    def fields(found: list[Observed]) -> str:
        return "\n\n".join(map(render.record, found)) or f"{domain} is gone"

    async def watched(session: Session) -> None:
        from orchestrator.cli import live  # noqa: PLC0415  not on the way of --help

        found = await session.client.get(domain)
        display = _display(settings, _domains_picture(fields))
        await live.domains(session, display, f"*.{found.project}.{found.uuid}")

    if watch:
        with_session(settings, watched)
    else:
        render.show(settings.format, with_client(settings, lambda client: client.get(domain)), render.record)


@click.command(cls=Command, short_help=VERBS["xml"].summary)
@domain_argument
@click.pass_obj
def xml(settings: Settings, domain: str) -> None:
    """Show a domain's XML, as its hypervisor has it. DOMAIN is a name or UUID."""
    found = with_client(settings, lambda client: client.xml(domain))
    render.show(settings.format, {"xml": found}, lambda answer: answer["xml"].rstrip())


@click.command(cls=Command, short_help=VERBS["stats"].summary)
@domain_argument
@click.pass_obj
def stats(settings: Settings, domain: str) -> None:
    """Show a domain's figures under libvirt's names. DOMAIN is a name or UUID."""
    render.show(settings.format, with_client(settings, lambda client: client.stats(domain)), render.fields)


def _show_list(settings: Settings, found: list[Any], table: str, names: list[str] | bool) -> None:
    """Print a list; where there are `names`, these alone."""
    if isinstance(names, list):
        if settings.format == "table":
            for name in names:
                render.say(render.printable(name))
            return
        found = names
    render.show(settings.format, found, lambda _: table)


def _check(names_only: bool, watch: bool) -> None:
    if names_only and watch:
        raise click.UsageError("--quiet prints a list once; leave out --watch")


def _display(settings: Settings, picture: Picture[T]) -> Display[T]:
    from orchestrator.cli.live import Display  # noqa: PLC0415  not on the way of --help

    return Display(settings.format, picture)


def _domains_picture(whole: Callable[[list[Observed]], str]) -> Picture[Observed]:
    from orchestrator.cli.live import Picture  # noqa: PLC0415  not on the way of --help

    return Picture(whole=whole, head=render.DOMAIN_HEAD, row=render.domain_row, document=lambda one: one)


def _nodes_picture() -> Picture[render.Listed]:
    from orchestrator.cli.live import Picture  # noqa: PLC0415  not on the way of --help

    return Picture(whole=render.nodes, head=render.NODE_HEAD, row=render.node_row, document=render.Listed.document)


COMMANDS = (nodes, domains, get, xml, stats)
