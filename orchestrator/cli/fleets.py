"""`virtbus context`: which fleets there are, and which of them is meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import complete, contexts, render
from orchestrator.cli.settings import Command, Settings, everywhere
from orchestrator.protocol.token import is_word

_FILE = "file:"
"""Begins a server that is named by a file: the URL stands in it, and with it a secret."""

_HEAD = ("", "NAME", "SERVER", "PROJECT", "PREFIX", "CREDS")


class _Contexts(click.Group):
    """The group; its commands take `-o` too, and stand in the order of their use."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the order in which the commands were added."""
        return list(self.commands)


@click.group(cls=_Contexts, invoke_without_command=True, short_help="choose among several fleets")
@click.pass_context
def context(running: click.Context) -> None:
    """Choose among several fleets: each is a context in the config file, under a name.

    The file is $VIRTBUS_CONFIG, else virtbus/config.toml in the XDG directory for configuration. What holds is the first of:
    options, the context that --context names, VIRTBUS_SERVER and its like, the context of VIRTBUS_CONTEXT or in use (left out
    where a server is named before it), a broker on this machine.
    """
    if running.invoked_subcommand is None:
        running.invoke(list_)


context.params.extend(everywhere())


@context.command("list", short_help="list the contexts; * is the one in use")
@click.option("-q", "--quiet", "names_only", is_flag=True, help="Print names only, one a line.")
@click.pass_obj
def list_(settings: Settings, names_only: bool = False) -> None:
    """List the contexts; * marks the one in use."""
    config, used = settings.config, settings.chosen
    found = [{"name": name, "current": name == used, **_open(fields)} for name, fields in config.contexts.items()]
    if names_only:
        render.show(settings.format, list(config.contexts), "\n".join)
    elif found or settings.format != "table":
        render.show(settings.format, found, lambda found: render.columns(_HEAD, map(_row, found)))
    else:
        render.complain(f"no contexts in {config.path}; 'virtbus context set NAME --server URL' makes one")


@context.command("show", short_help="show one, or what holds now")
@click.argument("name", required=False, shell_complete=complete.contexts)
@click.pass_obj
def show(settings: Settings, name: str | None) -> None:
    """Show the context NAME; without one, what a command would use now."""
    if name is not None:
        found = {"name": name, **_open(settings.config.context(name))}
    else:
        found = {"context": settings.context, "server": contexts.shown(settings.server), "creds": settings.creds, "project": settings.owner}
        found |= {"prefix": settings.prefix, "file": str(settings.config.path)}
    render.show(settings.format, found, lambda found: render.fields({key: value for key, value in found.items() if value is not None}))


@context.command("use", short_help="put a context in use")
@click.argument("name", shell_complete=complete.contexts)
@click.pass_obj
def use(settings: Settings, name: str) -> None:
    """Put the context NAME in use: commands talk to its fleet unless they are told otherwise."""
    contexts.use(settings.config.path, name)
    _changed(settings, name, f"{name} is in use")
    for variable in ("VIRTBUS_CONTEXT", "VIRTBUS_SERVER"):
        if os.environ.get(variable):
            render.complain(f"{variable} is set in this shell, and goes before it")


def _token(running: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_word(value):
        raise click.BadParameter(f"{value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -", running, parameter)
    return value


@context.command("set", cls=click.Command, short_help="make a context, or change one")
@click.argument("name", callback=_token, shell_complete=complete.contexts)
@click.option("--server", metavar="URL", help="Its broker; a new context needs one.")
@click.option("--creds", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its NATS credentials file.")
@click.option("--project", metavar="NAME", callback=_token, help="The project meant there.")
@click.option("--prefix", metavar="WORD", callback=_token, help="First token of all subjects there.")
@click.option("--reader", metavar="NAME", callback=_token, help="Name of the reader there, where the broker holds the user to one.")
@click.option("--use", "used", is_flag=True, help="Put it in use, too.")
@click.pass_obj
def set_(settings: Settings, /, name: str, used: bool, creds: Path | None, **given: str | None) -> None:
    """Make the context NAME, or change what is given of it. The first one is in use at once."""
    config = settings.config
    fields = {field: value for field, value in given.items() if value is not None}
    if fields.get("server", "").startswith(_FILE):
        fields["server"] = f"{_FILE}{Path(fields['server'].removeprefix(_FILE)).resolve()}"
    if creds is not None:
        fields["creds"] = str(creds.resolve())
    if name not in config.contexts and "server" not in fields:
        raise click.UsageError(f"there is no context {name!r} yet; give its --server")
    contexts.put(config.path, name, fields)
    if used:
        contexts.use(config.path, name)
    _changed(settings, name, f"{name} is in {config.path}")


@context.command("remove", short_help="remove a context")
@click.argument("name", shell_complete=complete.contexts)
@click.pass_obj
def remove(settings: Settings, name: str) -> None:
    """Remove the context NAME from the file; files that it names stay."""
    contexts.remove(settings.config.path, name)
    _changed(settings, name, f"{name} is removed")


def _changed(settings: Settings, name: str, said: str) -> None:
    render.show(settings.format, {"ok": True, "name": name}, lambda _: said)


def _open(fields: dict[str, str]) -> dict[str, Any]:
    """Return a context without the password that may stand in its URL."""
    return {**fields, **({"server": contexts.shown(fields["server"])} if "server" in fields else {})}


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    return ("*" if found["current"] else " ", *(str(found.get(field, "")) for field in ("name", "server", "project", "prefix", "creds")))
