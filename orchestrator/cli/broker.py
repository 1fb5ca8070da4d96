"""The command that tells a broker of one's own who may come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli import render
from orchestrator.cli.settings import Command, Settings
from orchestrator.protocol.token import is_word

if TYPE_CHECKING:
    from orchestrator.cli.keyring import Guest
    from orchestrator.protocol.subject import Subjects

F = TypeVar("F", bound=Callable[..., Any])


def _words(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not is_word(value):
            raise click.BadParameter(f"{value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -", context, parameter)
    return values


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {user: project for user, _, project in (value.partition("=") for value in values)}
    _words(context, parameter, (*pairs, *pairs.values()))
    return pairs


def _names(option: str, name: str, help: str, default: tuple[str, ...] = ()) -> Callable[[F], F]:
    shown = bool(default)
    return click.option(option, name, multiple=True, metavar="NAME", callback=_words, default=default, show_default=shown, help=help)


@click.command(cls=Command, short_help="write a broker's configuration, and a key for each who may come in")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@_names("--node", "nodes", "A node whose worker may come in; repeatable.")
@_names("--coordinator", "coordinators", "A coordinator that may; repeatable.", ("coordinator",))
@_names("--admin", "admins", "An operator; repeatable.", ("admin",))
@click.option("--client", "clients", metavar="NAME=PROJECT", multiple=True, callback=_pairs, help="A client of one project; repeatable.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the broker listens, and how all reach it.")
@click.option("--port", type=click.IntRange(1, 65535), default=4222, show_default=True, help="Its port.")
@click.option("--monitor", type=click.IntRange(1, 65535), help="Port on 127.0.0.1 that answers /healthz (default: none).")
@click.option("--store", type=click.Path(path_type=Path), default="/var/lib/nats", show_default=True, help="Where its logs are.")
@click.option("--durable", is_flag=True, help="Sync each message to disk before it is acknowledged.")
@click.pass_obj
def broker_config(settings: Settings, /, directory: Path, **given: Any) -> None:
    """Write DIRECTORY/broker/nats.conf, and for each who may come in DIRECTORY/KIND/NAME/server, the URL that lets it in.

    KIND is coordinator, node, client or admin. Each may do what its part needs and nothing else.
    `--server file:DIRECTORY/KIND/NAME/server` uses a key. Keys that exist stay as they are. The files are for you and your group.
    """
    from orchestrator.cli import keyring  # noqa: PLC0415  not on the way of --help
    from orchestrator.protocol.subject import Subjects  # noqa: PLC0415  as above

    guests = _guests(Subjects(settings.prefix), given)
    names = [guest.name for guest in guests]
    if len(set(names)) < len(names):
        raise click.UsageError("two have the same name; each needs one of its own")
    broker = keyring.Broker(**{name: given[name] for name in keyring.Broker.__struct_fields__})
    try:
        keyring.write(directory, broker, guests)
    except OSError as error:
        raise click.ClickException(f"the configuration cannot be written: {error}") from error
    render.say(f"wrote {directory / 'broker' / 'nats.conf'} and the keys of {', '.join(names)}")


def _guests(subjects: Subjects, given: Mapping[str, Any]) -> list[Guest]:
    """Return who may come in, and what for."""
    from orchestrator.cli.keyring import Guest  # noqa: PLC0415  not on the way of --help
    from orchestrator.protocol import permission  # noqa: PLC0415  as above

    allowed = [
        *(("coordinator", name, permission.coordinator(subjects, name)) for name in given["coordinators"]),
        *(("node", name, permission.worker(subjects, name)) for name in given["nodes"]),
        *(("client", name, permission.client(subjects, name, project)) for name, project in given["clients"].items()),
        *(("admin", name, permission.admin(subjects, name)) for name in given["admins"]),
    ]
    return [Guest(kind=kind, name=name, permissions=permissions) for kind, name, permissions in allowed]


COMMANDS = (broker_config,)
