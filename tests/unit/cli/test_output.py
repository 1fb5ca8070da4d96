"""How things are printed: tables, JSON, YAML, names; in colour for people, and never in somebody's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from orchestrator.cli import render
from orchestrator.cli.entry import LEFT, run
from tests.unit.cli.conftest import Fleet
from tests.unit.cli.test_commands import DOMAIN, NODE, UUID, done, told

SECOND = DOMAIN | {"name": "app1", "uuid": UUID.replace("1b5e", "0000"), "state": "shutoff"}


def domains(_: Any) -> dict[str, Any]:
    """Answer with two domains."""
    return {"ok": True, "result": {"domains": [DOMAIN, SECOND]}}


@pytest.mark.parametrize("option", [["-o", "json"], ["-ojson"], ["--output", "json"], ["--output=json"], ["--json"]])
def test_the_format_may_be_asked_for_in_any_way(option: list[str], fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the command's name, after it, and where the command line is wrong."""
    fleet.answer = domains
    for arguments in ([*option, "domains"], ["domains", *option]):
        assert run(arguments) == 0
        assert json.loads(capsys.readouterr().out) == [SECOND, DOMAIN]
    assert run(["domains", *option, "--what"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "invalid"


def test_what_stands_after_the_name_wins(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A script may set a default and a call change it."""
    fleet.answer = domains
    assert run(["-o", "json", "domains", "-o", "table"]) == 0
    assert capsys.readouterr().out.startswith("NAME")


def test_yaml_says_the_same_as_json(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a result, of an error, and of events, one document each."""
    fleet.answer = domains
    assert run(["domains", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == [SECOND, DOMAIN]
    fleet.answer = done
    assert run(["start", "web1", "-o", "yaml", "--id", "one"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["id"] == "one"
    fleet.answer = lambda _: {"ok": False, "error": {"code": "not_found", "message": "no: [it"}}
    assert run(["get", "web1", "-o", "yaml"]) == 1
    assert yaml.safe_load(capsys.readouterr().out)["error"]["message"] == "no: [it"
    fleet.stored = [told(1, "lifecycle.started", {"event": "started"}), told(2, "lifecycle.stopped", {"event": "stopped"})]
    assert run(["events", "--no-follow", "-o", "yaml"]) == 0
    assert [each["data"] for each in yaml.safe_load_all(capsys.readouterr().out)] == [{"event": "started"}, {"event": "stopped"}]


@pytest.mark.parametrize(
    ("arguments", "answer", "names"),
    [
        (["domains", "-q"], domains, "app1\nweb1\n"),
        (["nodes", "--quiet"], lambda _: {"ok": True, "result": {"nodes": [NODE]}}, "n1\n"),
        (["domains", "-q", "--json"], domains, '["app1","web1"]\n'),
    ],
)
def test_quiet_prints_names_only(
    arguments: list[str], answer: Callable[[Any], Any], names: str, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """One a line and no head, for xargs."""
    fleet.answer = answer
    assert run(arguments) == 0
    assert capsys.readouterr().out == names


def test_colours_are_for_people_who_want_them(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal; not elsewhere, and not where NO_COLOR is set."""
    fleet.answer = domains
    assert run(["domains"]) == 0
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    monkeypatch.setattr(render, "on_terminal", lambda: True)
    assert render.columns(("STATE", "NODE"), [("running", "n1")]) == "STATE    NODE\n\x1b[32mrunning\x1b[0m  n1"
    monkeypatch.setenv("NO_COLOR", "1")
    assert render.columns(("STATE", "NODE"), [("running", "n1")]) == "STATE    NODE\nrunning  n1"


def test_events_until_now_end_by_themselves(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Those kept are printed, by kind, and the command ends; an empty log is no reason to wait either."""
    assert run(["events", "--no-follow", "--json"]) == 0
    assert capsys.readouterr().out == ""
    fleet.stored = [told(number, name, {}) for number, name in enumerate(("lifecycle.started", "reboot", "lifecycle.stopped"), 1)]
    assert run(["events", "--no-follow", "--json", "--kind", "lifecycle"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [json.loads(fleet.stored[0].body), json.loads(fleet.stored[2].body)] == lines
    assert run(["events", "--no-follow", "--json", "--since", "2100-01-01T00:00:00Z"]) == 0
    assert capsys.readouterr().out == ""


def test_a_reader_that_has_left_ends_the_command_quietly() -> None:
    """`virtbus … | head`: the exit code of a process that SIGPIPE ended, and nothing said."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "orchestrator.cli", "schema"]
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=30, check=False)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (LEFT, b"")


def test_a_reader_that_leaves_amid_events_ends_them(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from within tasks."""
    fleet.stored = [told(1, "lifecycle.started", {})]

    def echo(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("click.echo", echo)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert run(["events", "--since", "365d"]) == LEFT


def test_help_lists_commands_under_headings(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command once, with a line that says what it does."""
    assert run(["--help"]) == 0
    output = capsys.readouterr().out
    headings = [line for line in output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options:", "Look:", "Change domains:", "Follow:", "Run:", "Set up:"]
    for name in ("nodes", "create-xml", "events", "wait", "cancel", "up", "doctor", "context", "completion"):
        listed = [line.split() for line in output.splitlines() if line.startswith(f"  {name} ")]
        assert len(listed) == 1
        assert len(listed[0]) > 2, name
