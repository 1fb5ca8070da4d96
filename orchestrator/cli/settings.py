"""What holds for every command, given before its name or after it, in the environment, or in a context."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from orchestrator.cli import contexts
from orchestrator.protocol.token import DEFAULT_PROJECT, is_word

SERVER = "nats://127.0.0.1:4222"
FORMATS = ("table", "json", "yaml")
_PREFIX = "virt"
_VARIABLES = {field: f"VIRTBUS_{field.upper()}" for field in contexts.FIELDS}


class Settings:
    """The options that all commands share; what stands after the command's name wins over what stands before it.

    Where to, and as whom, is the first that says so of: the command line, a context that it names, the environment, the
    context in use, and a broker on this machine. A context in use is left out where a nearer one names the server, and
    credentials never go to a server that is named nearer than they are.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, *, contexts_too: bool = True) -> None:
        """`contexts_too` False: contexts in use do not count, for what runs on this machine."""
        self.given: dict[str, Any] = {}
        self._environment = os.environ if environment is None else environment
        self._contexts_too = contexts_too
        self._config: contexts.Config | None = None

    @property
    def format(self) -> str:
        """How to print: one of `FORMATS`."""
        return str(self.given.get("output", FORMATS[0]))

    @property
    def wait(self) -> bool:
        """Whether to keep trying while the broker is away."""
        return bool(self.given.get("wait"))

    @property
    def verbose(self) -> bool:
        """Whether to log to stderr what happens."""
        return bool(self.given.get("verbose"))

    @property
    def server(self) -> str:
        """The broker's URL."""
        return self._first("server") or SERVER

    @property
    def creds(self) -> str | None:
        """Path of the NATS credentials file for that server."""
        for source in self._sources():
            if source.get("creds") or source.get("server"):
                return source.get("creds") or None
        return None

    @property
    def prefix(self) -> str:
        """First token of all subjects."""
        return _word("prefix", self._first("prefix") or _PREFIX)

    @property
    def project(self) -> str | None:
        """The project that was asked for, if any."""
        found = self._first("project")
        return None if found is None else _word("project", found)

    @property
    def owner(self) -> str:
        """The project whose domains are meant."""
        return self.project or DEFAULT_PROJECT

    @property
    def reader(self) -> str:
        """Name under which logs are read, where the broker holds this user to one; empty: a new one each time."""
        return self._first("reader") or ""

    @property
    def config(self) -> contexts.Config:
        """The user's file of contexts. Raises `click.ClickException` if it cannot be understood."""
        if self._config is None:
            self._config = contexts.read(contexts.config_path(self._environment))
        return self._config

    @property
    def chosen(self) -> str | None:
        """Name of the context that is asked for or in use, if any."""
        return self.given.get("context") or self._environment.get("VIRTBUS_CONTEXT") or self.config.current

    @property
    def context(self) -> str | None:
        """Name of the context that counts: the chosen one, unless it is left out."""
        if "context" in self.given:
            return str(self.given["context"])
        left_out = self.given.get("server") or self._environment.get(_VARIABLES["server"]) or not self._contexts_too
        return None if left_out else self.chosen

    def here(self) -> Settings:
        """Return the same without the context in use: for what runs on this machine."""
        local = Settings(self._environment, contexts_too=False)
        local.given = self.given
        return local

    def _first(self, field: str) -> str | None:
        return next((str(source[field]) for source in self._sources() if source.get(field)), None)

    def _sources(self) -> Iterator[Mapping[str, Any]]:
        """Yield who may say where to, the nearest first; the file is not read where a nearer one has said it."""
        surroundings = {field: self._environment.get(variable) for field, variable in _VARIABLES.items()}
        yield self.given
        if "context" in self.given:
            yield self.config.context(self.given["context"])
            yield surroundings
        else:
            yield surroundings
            if self.context is not None:
                yield self.config.context(self.context)


def _word(name: str, value: str) -> str:
    if not is_word(value):
        raise click.UsageError(f"{name}: {value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -")
    return value


class Command(click.Command):
    """A command that takes `-o`, `--json` and `--project` after its name too."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params.extend(everywhere())


class Group(click.Group):
    """The commands under headings, in the order in which they were added: a reader meets them by use, not by letter."""

    command_class = Command

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params.extend([*_before(), *everywhere()])
        self._sections: dict[str, list[click.Command]] = {}

    def add_section(self, heading: str, *commands: click.Command) -> None:
        """Add commands, listed under `heading`."""
        self._sections.setdefault(heading, []).extend(commands)
        for command in commands:
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        """Write the commands, a section a heading."""
        width = max(map(len, self.commands))
        for heading, commands in self._sections.items():
            with formatter.section(heading):
                formatter.write_dl([((command.name or "").ljust(width), command.get_short_help_str(80)) for command in commands])


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Put an option into the settings if it was given; its default does not undo what stood before the command's name."""
    name = parameter.name or ""
    if context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT:
        return
    if name in contexts.WORDS and not is_word(value):
        raise click.BadParameter(f"{value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -", context, parameter)
    given = context.ensure_object(Settings).given
    if name == "json":
        name, value = "output", "json"
    given[name] = value


def reader_option() -> click.Option:
    """Return `--reader`, which stands before the command's name, and after that of one that reads a log."""
    return _option("--reader", help="Name of the reader, where the broker holds this user to one.", metavar="NAME")


def _option(*names: str, help: str, **more: Any) -> click.Option:
    return click.Option(names, help=help, expose_value=False, callback=_keep, **more)


def everywhere() -> list[click.Option]:
    """Return the options that every command takes, before its name and after it."""
    return [
        _option("-o", "--output", help="How to print: table (default), json or yaml.", type=click.Choice(FORMATS), metavar="FORMAT"),
        _option("--json", help="The same as -o json: one document; of what has no end, one a line.", is_flag=True),
        _option("--project", help=f"Project whose domains are meant (default: $VIRTBUS_PROJECT, else {DEFAULT_PROJECT}).", metavar="NAME"),
    ]


def _before() -> list[click.Option]:
    from orchestrator.cli import complete  # noqa: PLC0415  it needs settings itself

    server = f"Broker to talk to; credentials may stand in it (default: $VIRTBUS_SERVER, else {SERVER})."
    context = "Fleet to talk to, from the config file (default: $VIRTBUS_CONTEXT, else the one in use)."
    return [
        _option("--context", help=context, metavar="NAME", shell_complete=complete.contexts),
        _option("--server", help=server, metavar="URL"),
        _option("--creds", help="NATS credentials file (default: $VIRTBUS_CREDS).", type=click.Path(), metavar="FILE"),
        _option("--prefix", help=f"First token of all subjects (default: $VIRTBUS_PREFIX, else {_PREFIX}).", metavar="WORD"),
        reader_option(),
        _option("--wait", help="Keep trying while the broker is away.", is_flag=True),
        _option("--verbose", help="Log to stderr what happens.", is_flag=True),
    ]
