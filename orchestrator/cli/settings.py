"""What holds for every command, given before its name or after it."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from orchestrator.protocol.token import DEFAULT_PROJECT, is_word

SERVER = "nats://127.0.0.1:4222"


class Settings(msgspec.Struct, kw_only=True):
    """The options that all commands share; what stands after the command's name wins."""

    server: str = SERVER
    creds: str | None = None
    json: bool = False
    project: str | None = None
    prefix: str = "virt"
    wait: bool = False
    verbose: bool = False

    @property
    def owner(self) -> str:
        """The project whose domains are meant."""
        return self.project or DEFAULT_PROJECT


class Command(click.Command):
    """A command that takes `--json` and `--project` after its name too."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params.extend(_everywhere())


class Group(click.Group):
    """The commands, in the order in which they were added: a reader meets them by use, not by letter."""

    command_class = Command

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params.extend([*_before(), *_everywhere()])

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the order in which the commands were added."""
        return list(self.commands)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Put an option into the settings if it was given; its default does not undo what stood before the command's name."""
    name = parameter.name or ""
    if name in ("project", "prefix") and value is not None and not is_word(value):
        raise click.BadParameter(f"{value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -", context, parameter)
    if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
        setattr(context.find_object(Settings), name, value)


def _option(name: str, text: str, **more: Any) -> click.Option:
    return click.Option([name], help=text, expose_value=False, callback=_keep, **more)


def _everywhere() -> list[click.Option]:
    return [
        _option("--json", "Print JSON: one document; for events one a line.", is_flag=True),
        _option("--project", f"Project whose domains are meant (default: {DEFAULT_PROJECT}).", metavar="NAME"),
    ]


def _before() -> list[click.Option]:
    server = f"Broker to talk to; credentials may stand in it (default: $VIRTBUS_SERVER, else {SERVER})."
    return [
        _option("--server", server, metavar="URL", envvar="VIRTBUS_SERVER"),
        _option("--creds", "NATS credentials file (default: $VIRTBUS_CREDS).", metavar="FILE", envvar="VIRTBUS_CREDS"),
        _option("--prefix", "First token of all subjects (default: $VIRTBUS_PREFIX, else virt).", metavar="WORD", envvar="VIRTBUS_PREFIX"),
        _option("--wait", "Keep trying while the broker is away.", is_flag=True),
        _option("--verbose", "Log to stderr what happens.", is_flag=True),
    ]
