"""JSON Schemas of all that travels, from the structs that read and write it."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.protocol.command import Body, Result
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.event import Event
from orchestrator.protocol.node import Lease, Node
from orchestrator.protocol.verb import VERBS

_RECORDS: tuple[type[msgspec.Struct], ...] = (Body, Result, Event, Observed, Owner, Node, Lease)


def document() -> dict[str, Any]:
    """Return one JSON Schema document: records and arguments in `$defs`, and under `verbs` which arguments each verb takes."""
    kinds = sorted({verb.args for verb in VERBS.values()}, key=lambda kind: kind.__name__)
    _, definitions = msgspec.json.schema_components([*_RECORDS, *kinds], ref_template="#/$defs/{name}")
    verbs = {verb.name: {"kind": verb.kind, "summary": verb.summary, "args": f"#/$defs/{verb.args.__name__}"} for verb in VERBS.values()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "verbs": verbs, "$defs": definitions}
