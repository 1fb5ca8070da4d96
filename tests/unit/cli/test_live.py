"""Lists that go on showing what changes: drawn anew on a terminal, appended elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from orchestrator.bus.port import Outgoing
from orchestrator.cli import live, render
from orchestrator.cli.entry import run
from orchestrator.cli.live import Display, Picture
from orchestrator.protocol import codec
from tests.unit.cli.conftest import Fleet
from tests.unit.cli.test_commands import DOMAIN, LEASE, NODE, UUID

Row = tuple[str, str]
PICTURE: Picture[Row] = Picture(
    whole=lambda rows: render.columns(("NAME", "STATE"), rows),
    head=("NAME", "STATE"),
    row=lambda row: row,
    document=lambda row: {"name": row[0]},
)
KEY = f"$KV.virt_domains.n1.default.{UUID}"


class Enough(Exception):
    """Ends what has no end of its own."""


def lines(text: str) -> list[str]:
    """Return what stands in the lines of `text`."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_changes_are_appended_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """A head, what is there, and then a line for each change; what did not change is not told again."""
    display = Display("table", PICTURE)
    display.update({"a": ("web1", "running"), "b": ("web2", "shutoff")})
    display.update({"a": ("web1", "running"), "b": ("web2", "shutoff")})
    display.update({"a": ("web1", "paused"), "b": ("web2", "shutoff")})
    display.update({"a": ("web1", "paused")})
    assert lines(capsys.readouterr().out) == ["NAME STATE", "web1 running", "web2 shutoff", "web1 paused", "web2 gone"]


def test_documents_are_one_a_line_and_tell_what_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads on from line to line."""
    display = Display("json", PICTURE)
    display.update({"a": ("web1", "running")})
    display.update({})
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"name": "web1"}, {"name": "web1", "gone": True}]


def test_a_terminal_shows_the_list_as_it_is_now(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each picture goes over the one before: up by its height, every line to its end, and what was below it away."""
    monkeypatch.setattr(render, "on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    display = Display("table", PICTURE)
    display.update({"a": ("web1", "running"), "b": ("web2", "shutoff")})
    capsys.readouterr()
    display.update({"b": ("web2", "shutoff")})
    assert capsys.readouterr().out == "\x1b[?7l\x1b[3FNAME  STATE\x1b[K\nweb2  shutoff\x1b[K\n\x1b[0J\x1b[?7h"


def test_a_list_higher_than_the_screen_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What has scrolled away cannot be drawn over."""
    monkeypatch.setattr(render, "on_terminal", lambda: True)
    monkeypatch.setenv("LINES", "5")
    Display("table", PICTURE).update({str(number): (f"web{number}", "") for number in range(9)})
    assert capsys.readouterr().out.count("\n") == 4


@pytest.mark.parametrize(
    ("arguments", "stored", "changed", "told"),
    [
        (
            ["domains", "--watch"], [Outgoing(KEY, codec.encode(DOMAIN))], Outgoing(KEY, codec.encode(DOMAIN | {"state": "paused"})),
            ["NAME STATE NODE VCPUS MEMORY UUID", f"web1 running n1 2 1024 MiB {UUID}", f"web1 paused n1 2 1024 MiB {UUID}"],
        ),
        (
            ["get", "web1", "--watch"], [Outgoing(KEY, codec.encode(DOMAIN))], Outgoing(KEY, b"", {"KV-Operation": "PURGE"}),
            ["NAME STATE NODE VCPUS MEMORY UUID", f"web1 running n1 2 1024 MiB {UUID}", f"web1 gone n1 2 1024 MiB {UUID}"],
        ),
        (
            ["nodes", "--watch"],
            [Outgoing("$KV.virt_nodes.n1", codec.encode(NODE)), Outgoing("$KV.virt_leases.n1", codec.encode(LEASE))],
            Outgoing("$KV.virt_leases.n1", b"", {"KV-Operation": "PURGE"}),
            [
                "NODE STATE HYPERVISORS DOMAINS CPUS FREE MEMORY SCHEDULABLE",
                "n1 online test:///default 1 4 1024 MiB 2048 MiB yes", "n1 offline test:///default 1 4 1024 MiB 2048 MiB yes",
            ],
        ),
    ],
    ids=["domains", "get", "nodes"],
)
def test_a_watched_list_tells_what_its_bucket_tells(
    arguments: list[str], stored: list[Outgoing], changed: Outgoing, told: list[str], fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes come from the state itself, so none is missed and none is asked for."""
    fleet.stored = stored
    fleet.answer = lambda _: {"ok": True, "result": {"domain": DOMAIN}}
    said: list[str] = []
    tasks: list[asyncio.Task[int]] = []

    def echo(line: str, **_: Any) -> None:
        said.append(" ".join(line.split()))
        if len(said) == 2:
            tasks.append(asyncio.get_running_loop().create_task(fleet.far.append(changed)))
        if len(said) == len(told):
            raise Enough

    monkeypatch.setattr("click.echo", echo)
    with pytest.raises(Enough):
        run(arguments)
    assert said == told


def test_state_that_may_not_be_read_is_said_so(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A user without that right is not left waiting."""
    monkeypatch.setattr(live, "FILL_S", 0.05)
    assert fleet.stored == []
    assert run(["--prefix", "other", "domains", "--watch"]) == 1
    assert "'virtbus doctor' tells which" in capsys.readouterr().err


def test_names_alone_cannot_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    """They tell nothing of a change."""
    assert run(["domains", "--quiet", "--watch"]) == 2
    assert "leave out --watch" in capsys.readouterr().err
