"""The wire contract as documents: AsyncAPI and TypeScript, both made from the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.cli import answers, asyncapi
from orchestrator.cli.entry import run
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import VERBS

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
OFFICIAL = EXAMPLES / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
NEEDS_NODE = "'tools/setup node' was not run"


@pytest.fixture(scope="module")
def official() -> Any:
    """Return a validator for the official JSON Schema of AsyncAPI 3."""
    if not OFFICIAL.exists():
        pytest.skip(NEEDS_NODE)
    schema = json.loads(OFFICIAL.read_text())
    return jsonschema.validators.validator_for(schema)(schema)


def test_the_document_is_asyncapi_3(official: Any) -> None:
    """The official schema finds no fault with it."""
    assert [] == [jsonschema.exceptions.best_match([error]).message for error in official.iter_errors(asyncapi.document())]


def test_a_document_with_a_fault_is_refused(official: Any) -> None:
    """An operation without its action: so the check above can fail."""
    document = asyncapi.document()
    del document["operations"]["api-start"]["action"]
    assert not official.is_valid(document)


def references(part: Any) -> Iterator[str]:
    """Yield every reference in a document."""
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from references(value)
    if isinstance(part, dict) and isinstance(part.get("$ref"), str):
        yield part["$ref"]


def test_every_reference_leads_somewhere() -> None:
    """Followed step by step from the root of the document."""
    document = asyncapi.document()
    for reference in references(document):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in found, reference
            found = found[step]


@pytest.mark.parametrize("prefix", ["virt", "lab"])
def test_every_subject_is_one_that_the_code_takes_apart(prefix: str) -> None:
    """With a word in place of each parameter, whatever the prefix."""
    subjects = Subjects(prefix)
    parse = {
        "api": subjects.parse_addressed,
        "cmd": subjects.parse_addressed,
        "run": subjects.parse_routed,
        "ask": subjects.parse_routed,
        "evt": subjects.parse_event,
        "res": subjects.parse_result,
    }
    addresses = [one["address"] for one in asyncapi.document(prefix)["channels"].values() if one["address"] is not None]
    assert set(parse) == {address.split(".")[2] for address in addresses}
    for address in addresses:
        subject = re.sub(r"\{\w+\}", "word", address)
        assert subject.startswith(f"{prefix}.v1.")
        parse[subject.split(".")[2]](subject)


def test_every_verb_has_a_channel_and_every_question_an_answer() -> None:
    """Nothing of the registry is left out."""
    document = asyncapi.document()
    assert set(VERBS) == {name.partition("-")[2] for name in document["channels"] if name.startswith("api-")}
    assert {name for name, verb in VERBS.items() if verb.kind in ("query", "fleet")} == set(answers.ANSWERS)


def test_the_command_prints_it_under_the_prefix_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """As one line of JSON."""
    assert 0 == run(["--prefix", "lab", "asyncapi"])
    printed = json.loads(capsys.readouterr().out)
    assert "lab.v1.api.{project}.{domain}.start" == printed["channels"]["api-start"]["address"]


def test_the_published_types_are_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Else: `virtbus schema --typescript > docs/examples/types/index.d.ts`."""
    assert 0 == run(["schema", "--typescript"])
    assert (EXAMPLES / "types" / "index.d.ts").read_text() == capsys.readouterr().out
    assert version("virtbus") == json.loads((EXAMPLES / "types" / "package.json").read_text())["version"]
