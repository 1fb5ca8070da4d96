"""`virtbus invalid`: what was refused as malformed, and nothing else."""

from __future__ import annotations

import json

import msgspec
import pytest
import yaml

from orchestrator.bus.port import Outgoing
from orchestrator.cli.entry import run
from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.error import Conflict, Invalid, WireError
from orchestrator.protocol.event import event
from orchestrator.protocol.subject import Subjects
from tests.unit.cli.conftest import Fleet

SUBJECTS = Subjects()


def failed(number: int, error: WireError, project: str = "p") -> Outgoing:
    """Return the event of a command that `error` ended."""
    subject = f"virt.v1.cmd.{project}.web{number}.start"
    result = Result(
        id=f"k{number}", verb="start", ok=False, node="_", project=project, error=error.failure(), duration_ms=0.0, subject=subject
    )
    told = event(
        prefix="virt",
        name="command.failed",
        source="/virt/coordinators/c",
        node="_",
        project=project,
        subject="_",
        time=f"2026-01-01T00:00:0{number}.000000Z",
        epoch="01JD0000000000000000000000",
        sequence=number,
        previous=0,
        data=msgspec.to_builtins(result),
    )
    return Outgoing(SUBJECTS.evt("_", project, "_", "command.failed"), codec.encode(told))


@pytest.fixture
def refused(fleet: Fleet) -> Fleet:
    """Three malformed commands of two projects, another failure, and something that is no event."""
    fleet.stored += [
        failed(1, Invalid("id: use letters\nand digits")),
        failed(2, Conflict("no")),
        Outgoing(SUBJECTS.evt("_", "p", "_", "command.failed"), b"garbage"),
        failed(3, Invalid("verb 'x' is unknown here"), project="_"),
        failed(4, Invalid("body: wrong")),
    ]
    return fleet


@pytest.mark.usefixtures("refused")
def test_malformed_commands_are_listed_with_time_project_subject_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """The oldest first; other failures are not among them, and no reason breaks its line."""
    assert run(["invalid"]) == 0
    lines = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["TIME", "PROJECT", "SUBJECT", "REASON"],
        ["2026-01-01T00:00:01.000000Z", "p", "virt.v1.cmd.p.web1.start", "id: use letters and digits"],
        ["2026-01-01T00:00:03.000000Z", "_", "virt.v1.cmd._.web3.start", "verb 'x' is unknown here"],
        ["2026-01-01T00:00:04.000000Z", "p", "virt.v1.cmd.p.web4.start", "body: wrong"],
    ]


@pytest.mark.usefixtures("refused")
def test_the_last_ones_of_a_project_are_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, and the same as YAML."""
    assert run(["invalid", "--project", "p", "--limit", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == [
        {
            "time": "2026-01-01T00:00:04.000000Z",
            "project": "p",
            "node": "_",
            "subject": "virt.v1.cmd.p.web4.start",
            "id": "k4",
            "reason": "body: wrong",
        }
    ]
    assert run(["invalid", "--project", "p", "--limit", "1", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == found


@pytest.mark.usefixtures("refused")
def test_what_comes_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each; with --since, those that came before are among them."""
    lines: list[str] = []

    def echo(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("click.echo", echo)
    with pytest.raises(KeyboardInterrupt):
        run(["invalid", "--follow", "--since", "2020-01-01T00:00:00Z", "--project", "p"])
    assert [line.split()[-1] for line in lines] == ["digits", "wrong"]
