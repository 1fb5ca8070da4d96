"""JSON Schemas of all that travels, from the structs that read and write it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from orchestrator.cli import answers
from orchestrator.protocol.command import Body, Result
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.event import Event
from orchestrator.protocol.node import Lease, Node
from orchestrator.protocol.verb import VERBS

_RECORDS: tuple[type[msgspec.Struct], ...] = (Body, Result, answers.Refusal, Event, Observed, Owner, Node, Lease)


def document() -> dict[str, Any]:
    """Return one JSON Schema document: structs in `$defs`, and under `verbs` what each takes and is answered with."""
    verbs = {
        verb.name: {
            "kind": verb.kind,
            "summary": verb.summary,
            "args": f"#/$defs/{verb.args.__name__}",
            "answer": f"#/$defs/{answers.of(verb.name).__name__}",
        }
        for verb in VERBS.values()
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "verbs": verbs, "$defs": definitions("#/$defs/{name}")}


def definitions(reference: str) -> dict[str, Any]:
    """Return the schema of every struct by its name; `reference` is the form of references between them."""
    kinds = {*(verb.args for verb in VERBS.values()), *(answers.of(verb.name) for verb in VERBS.values())} - set(_RECORDS)
    _, found = msgspec.json.schema_components([*_RECORDS, *sorted(kinds, key=lambda kind: kind.__name__)], ref_template=reference)
    return {name: {**schema, "description": plain(inspect.cleandoc(schema.get("description", "")))} for name, schema in found.items()}


def plain(text: str) -> str:
    """Return text of a docstring for readers who do not have this project's design documents."""
    return re.sub(r" ?\(PROTOCOL §[^)]*\)", "", text)
