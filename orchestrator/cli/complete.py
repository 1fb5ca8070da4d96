"""What a shell may complete, asked of the live system: at most a second, and nothing at all rather than a word of complaint."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class, shell_complete

from orchestrator.cli import contexts as config
from orchestrator.cli import render
from orchestrator.protocol.token import is_word

if TYPE_CHECKING:
    from orchestrator.cli.session import Session

    Items = list[CompletionItem[str]]

VARIABLE = "_VIRTBUS_COMPLETE"
"""The variable in which a shell's script asks for completions."""

LIMIT_S = 0.75
"""Seconds after which the process ends, whatever it waits for; a person waits for Python's own start, too."""

RECENT_S = 3600.0
COMMANDS = 50
"""How far back, and how many commands are offered."""

_HELP = """Print the script that lets a shell complete commands, options, and names of domains, nodes and commands.

\b
bash: eval "$(virtbus completion bash)"    in ~/.bashrc
zsh:  eval "$(virtbus completion zsh)"     in ~/.zshrc, after compinit
fish: virtbus completion fish > ~/.config/fish/completions/virtbus.fish
"""


def run(group: click.Group, settings: object) -> int:
    """Answer a shell's script; return the exit code."""
    try:
        return shell_complete(group, {"obj": settings}, "virtbus", VARIABLE, os.environ[VARIABLE])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # while the interpreter ends, the alarm would kill the process, which a shell tells


def limit() -> None:
    """Have this process end in time, and say nothing but completions."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@click.command(short_help="print the script that completes commands in a shell", help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  click has each of the choices
    # not the class's own `source`: for bash it starts one, to look at its version
    render.say(ShellComplete.source(kind(click.Group("virtbus"), {}, "virtbus", VARIABLE)))


def contexts(context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Offer the contexts of the config file."""
    settings = context.find_root().obj
    return _offered(((name, config.shown(fields.get("server", ""))) for name, fields in settings.config.contexts.items()), begun)


def domains(context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Offer the project's domains, with their state; by UUID where the name is none that a shell takes as it is."""

    async def ask(session: Session) -> list[tuple[str, str]]:
        found = await session.client.domains()
        return [(one.name, f"{one.state} on {one.node}") if is_word(one.name) else (one.uuid, one.name) for one in found]

    return _live(context, ask, begun)


def nodes(context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Offer the nodes, with their hypervisors."""

    async def ask(session: Session) -> list[tuple[str, str]]:
        return [(one.node, " ".join(each.uri for each in one.hypervisors)) for one in await session.client.nodes()]

    return _live(context, ask, begun)


def hypervisors(context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Offer the hypervisors of all nodes, by URI and by type."""

    async def ask(session: Session) -> list[tuple[str, str]]:
        found = [(one.node, each) for one in await session.client.nodes() for each in one.hypervisors]
        uris = {each.uri: node for node, each in found}
        return [*uris.items(), *dict.fromkeys((kind, "type") for _, each in found for kind in each.types)]

    return _live(context, ask, begun)


def kinds(_context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Offer the kinds of events that this program knows."""
    from orchestrator import event  # noqa: PLC0415  not on the way of --help

    classes = [one for one in vars(event).values() if isinstance(one, type) and issubclass(one, event.Known) and "kind" in vars(one)]
    return _offered(sorted((one.kind, (one.__doc__ or "").partition("\n")[0]) for one in classes), begun)


def commands(context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Offer the ids of commands that were told of lately, the last first."""

    async def ask(session: Session) -> list[tuple[str, str]]:
        from orchestrator.cli.past import past  # noqa: PLC0415  not on the way of --help
        from orchestrator.feed import Wanted  # noqa: PLC0415  as above

        told: dict[str, str] = {}
        async for event in past(session, Wanted(project=session.client.project, kinds=("command",)), since=time.time() - RECENT_S):
            if event.commandid is not None:
                told.pop(event.commandid, None)
                told[event.commandid] = f"{event.name.partition('.')[2]} {event.domainname or ''}".strip()
        return list(reversed(told.items()))[:COMMANDS]

    return _live(context, ask, begun)


def _live(context: click.Context, ask: Callable[[Session], Awaitable[list[tuple[str, str]]]], begun: str) -> Items:
    """Ask the live system; whatever goes wrong, there is nothing to offer."""
    from orchestrator.cli.session import with_session  # noqa: PLC0415  not on the way of --help

    try:
        return _offered(with_session(context.find_root().obj, ask), begun)
    except Exception:  # noqa: BLE001  the root of a completion: a shell that waits for a word is no place to complain
        return []


def _offered(found: Iterable[tuple[str, str]], begun: str) -> Items:
    return [CompletionItem(value, help=render.printable(text)) for value, text in found if value.startswith(begun)]
