"""The group of commands, and the one place where failures become sentences and exit codes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import click

from orchestrator.bus.port import BusError
from orchestrator.cli import complete, contract, doctor, fleets, following, offers, processes, questions, render
from orchestrator.cli.settings import FORMATS, Group, Settings
from orchestrator.cli.verbs import command_of
from orchestrator.protocol.error import Invalid, NodeUnavailable, WireError
from orchestrator.protocol.verb import VERBS

DONE, NO, CANNOT, LEFT = 0, 1, 2, 141
"""Exit codes: done; the answer is no; wrong usage, or no broker; nobody reads the output any more, as after SIGPIPE."""


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415  not on the way of --help

        click.echo(f"virtbus {version('virtbus')}")
        context.exit()


def group() -> Group:
    """Return the whole command line. Raises `Invalid` if a package offers a verb that cannot be loaded."""
    offers.enlist()
    shown = click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
    made = Group(
        "virtbus",
        help="Virtual machines on NATS: commands in, events out.",
        params=[shown],
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.add_section("Look", *questions.COMMANDS)
    made.add_section("Change domains", *(command_of(verb) for verb in VERBS.values() if verb.kind == "verb"))
    made.add_section("Follow", *following.COMMANDS)
    made.add_section("Run", *processes.COMMANDS)
    made.add_section("Set up", doctor.doctor, fleets.context, complete.completion, *contract.COMMANDS)
    return made


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code. Foreseeable failures become one sentence on stderr."""
    if complete.VARIABLE in os.environ:
        complete.limit()
        return complete.run(group(), Settings())
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    settings = Settings()
    try:
        return _invoked(arguments, settings)
    except click.ClickException as error:
        return _refused(CANNOT, Invalid(_usage(error)), settings, arguments)
    except WireError as error:
        return _refused(NO, error, settings, arguments)
    except BusError as error:
        return _refused(CANNOT, NodeUnavailable(str(error)), settings, arguments)
    except BrokenPipeError:
        # what is still in the buffer has nowhere to go, also when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return LEFT


def _invoked(arguments: list[str], settings: Settings) -> int:
    """Run the command; raise that nobody reads the output any more as it is, also where a group of tasks has wrapped it."""
    try:
        with group().make_context("virtbus", arguments, obj=settings) as context:
            context.command.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BaseExceptionGroup as failures:
        pipes, others = failures.split(BrokenPipeError)
        if others is not None or pipes is None:
            raise
        raise BrokenPipeError from failures
    return DONE


def _usage(error: click.ClickException) -> str:
    """Return what is wrong with the command line, and where to read how it is right, as one line."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{text.rstrip('.')}; see '{context.command_path} --help'" if isinstance(context, click.Context) else text


def _refused(code: int, error: WireError, settings: Settings, arguments: Sequence[str]) -> int:
    format = _format(arguments) or settings.format
    if format != FORMATS[0]:
        render.show(format, {"ok": False, "error": error.failure()}, str)
    render.complain(error.message)
    return code


def _format(arguments: Sequence[str]) -> str | None:
    """Return the format that is asked for; a usage error may come before the option was read."""
    option = rf"(?:^| )(?:--json|(?:-o[ =]?|--output[ =])({'|'.join(FORMATS)}))(?= |$)"
    found = re.search(option, " ".join(arguments))
    return found and (found[1] or "json")
