"""The group of commands, and the one place where failures become sentences and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from orchestrator.bus.port import BusError
from orchestrator.cli import processes, questions, render
from orchestrator.cli.settings import Group, Settings
from orchestrator.cli.verbs import command_of
from orchestrator.protocol.error import Invalid, NodeUnavailable, WireError
from orchestrator.protocol.verb import VERBS

DONE, NO, CANNOT = 0, 1, 2


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415  not on the way of --help

        click.echo(f"virtbus {version('virtbus')}")
        context.exit()


def _group() -> Group:
    shown = click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
    group = Group(
        "virtbus",
        help="Virtual machines on NATS: commands in, events out.",
        params=[shown],
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in (*processes.COMMANDS, *questions.COMMANDS, *(command_of(verb) for verb in VERBS.values() if verb.kind == "verb")):
        group.add_command(command)
    return group


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code. Foreseeable failures become one sentence on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # a usage error may come before --json was read
    settings = Settings(json="--json" in arguments)
    try:
        return int(_group().main(args=arguments, prog_name="virtbus", obj=settings, standalone_mode=False) or DONE)
    except click.ClickException as error:
        return _refused(CANNOT, Invalid(_usage(error)), settings)
    except WireError as error:
        return _refused(NO, error, settings)
    except BusError as error:
        return _refused(CANNOT, NodeUnavailable(str(error)), settings)


def _usage(error: click.ClickException) -> str:
    """Return what is wrong with the command line, and where to read how it is right, as one line."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{text.rstrip('.')}; see '{context.command_path} --help'" if isinstance(context, click.Context) else text


def _refused(code: int, error: WireError, settings: Settings) -> int:
    if settings.json:
        render.document({"ok": False, "error": error.failure()})
    render.complain(error.message)
    return code
