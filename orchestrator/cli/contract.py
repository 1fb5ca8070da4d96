"""Commands that print the wire contract, made from the code; they need no broker."""

from __future__ import annotations

import click

from orchestrator.cli import render
from orchestrator.cli.settings import Command, Settings


@click.command(cls=Command, short_help="print the JSON Schemas of the wire")
@click.option("--typescript", is_flag=True, help="Print TypeScript declarations instead.")
def schema(typescript: bool) -> None:
    """Print one JSON document with the schemas of commands, results, events and records."""
    if typescript:
        from orchestrator.cli.typescript import document  # noqa: PLC0415  not on the way of --help

        render.say(document().rstrip())
    else:
        from orchestrator.cli import schemas  # noqa: PLC0415  as above

        render.document(schemas.document())


@click.command(cls=Command, short_help="print the AsyncAPI document of the wire")
@click.pass_obj
def asyncapi(settings: Settings) -> None:
    """Print one AsyncAPI 3 document with all subjects, messages and schemas, under the prefix given before the command."""
    from orchestrator.cli import asyncapi as contract  # noqa: PLC0415  not on the way of --help

    render.document(contract.document(settings.prefix))


COMMANDS = (schema, asyncapi)
