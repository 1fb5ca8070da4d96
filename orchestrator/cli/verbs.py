"""One command a verb, made from the registry: the fields of the verb's arguments become options."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import click
import msgspec

from orchestrator.cli import complete, render
from orchestrator.cli.session import with_client
from orchestrator.cli.settings import Command, Settings
from orchestrator.protocol import token
from orchestrator.protocol.command import Condition, Result
from orchestrator.protocol.domain import State
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.verb import Verb

if TYPE_CHECKING:
    from orchestrator.client import Client, Options

_COMPLETED = {"node": complete.nodes, "hypervisor": complete.hypervisors}


def command_of(verb: Verb) -> Command:
    """Return the command that sends `verb`."""
    metavar = "[DOMAIN]" if verb.creates else "DOMAIN"
    domain = click.Argument(["domain"], required=not verb.creates, metavar=metavar, shell_complete=complete.domains)
    note = " DOMAIN is the name or UUID that it shall have; left out, the XML's own." if verb.creates else " DOMAIN is a name or UUID."
    return Command(
        verb.name,
        params=[domain, *map(_option, msgspec.structs.fields(verb.args)), *_common(verb)],
        callback=click.pass_obj(partial(_run, verb)),
        help=f"{verb.summary[0].upper()}{verb.summary[1:]}.{note}",
        short_help=verb.summary,
    )


def _option(field: msgspec.structs.FieldInfo) -> click.Option:
    """Return the option for a field of a verb's arguments; `xml` is read from a file."""
    kind, text = _described(field.type)
    name = field.encode_name.replace("_", "-")
    if field.name == "xml":
        return click.Option(["xml", "--file"], type=click.File(encoding="utf-8"), required=True, help=f"{text}; - reads it from stdin")
    if kind is bool:
        switch = "--enabled/--disabled" if name == "enabled" else f"--{name}/--no-{name}"
        return click.Option([field.name, switch], default=field.default is True, help=text)
    return click.Option([field.name, f"--{name}"], type=kind, required=field.required, help=text, shell_complete=_COMPLETED.get(name))


def _described(annotation: Any) -> tuple[type, str]:
    """Return the plain type of a field, without None, and its description."""
    text = ""
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        text = next((note.description for note in notes if isinstance(note, msgspec.Meta) and note.description), "")
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return (kinds[0] if kinds else annotation), text


def _common(verb: Verb) -> list[click.Parameter]:
    seconds = click.FloatRange(min=0, min_open=True)
    return [
        click.Option(["--id"], metavar="ID", callback=_id, help="Idempotency key: repeated under it, the command has no second effect."),
        click.Option(["--timeout"], type=seconds, metavar="SECONDS", help=f"Time that the command has (default: {verb.timeout_s:g})."),
        click.Option(["--no-wait"], is_flag=True, help="Leave the command in the log and return at once; events tell its end."),
        click.Option(["--if-state"], type=click.Choice(get_args(State)), help="Only if the domain is in this state."),
        click.Option(["--if-generation"], type=int, metavar="N", help="Only if the domain has this generation."),
        click.Option(["--if-incarnation"], metavar="ULID", help="Only if this is the running instance."),
    ]


def _id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else token.command_id(value)
    except Invalid as error:
        raise click.BadParameter(error.message, context, parameter) from error


def _run(verb: Verb, settings: Settings, domain: str | None, no_wait: bool, **given: Any) -> None:
    """Send the command and print how it ended. Exits 1 where it failed."""
    options = _options(given)
    args = {name: _text(value) for name, value in given.items() if value is not None}
    name = domain or _named_in(args["xml"])

    async def post(client: Client) -> str:
        return await client.post(name, verb.name, args, **options)

    async def attempt(client: Client) -> Result:
        return await client.attempt(name, verb.name, args, **options)

    if no_wait:
        _posted(verb, name, with_client(settings, post), settings)
    else:
        _ended(with_client(settings, attempt), name, settings)


def _options(given: dict[str, Any]) -> Options:
    """Take the options that all verbs have out of `given`; what remains are the verb's own arguments."""
    state, generation, incarnation = given.pop("if_state"), given.pop("if_generation"), given.pop("if_incarnation")
    condition = Condition(state=state, generation=generation, incarnation=incarnation)
    return {"id": given.pop("id"), "timeout": given.pop("timeout"), "condition": condition if condition != Condition() else None}


def _text(value: Any) -> Any:
    """Return an option's value; a file's is its content."""
    if not hasattr(value, "read"):
        return value
    try:
        return value.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {value.name}: {error}") from error


def _named_in(xml: str) -> str:
    from orchestrator.protocol import domainxml  # noqa: PLC0415  not on the way of --help

    identity = domainxml.identify(xml)
    name = identity.name or identity.uuid
    if name is None:
        raise Invalid("the XML names no domain: add <name>, or give the name on the command line")
    return name


def _posted(verb: Verb, name: str, id: str, settings: Settings) -> None:
    render.show(settings.format, {"id": id}, lambda _: render.printable(f"{verb.name} {name}: left in the log as {id}"))


def _ended(result: Result, name: str, settings: Settings) -> None:
    if result.ok or settings.format != "table":
        render.show(settings.format, result, lambda result: render.result(result, name))
    if not result.ok:
        render.complain(result.error.message if result.error else "the command failed, and gives no reason")
        click.get_current_context().exit(1)
