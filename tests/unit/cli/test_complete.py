"""Completion: what the live system has, soon, or nothing; and never a word beside it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from orchestrator.cli import complete
from orchestrator.cli.entry import group, run
from orchestrator.cli.settings import Settings
from tests.unit.cli.conftest import Fleet
from tests.unit.cli.test_commands import DOMAIN, NODE, UUID, told


def offered(arguments: list[str], begun: str) -> list[str]:
    """Return what is offered for the word `begun` after `arguments`."""
    completion = ShellComplete(group(), {"obj": Settings()}, "virtbus", complete.VARIABLE)
    return [item.value for item in completion.get_completions(arguments, begun)]


def test_domains_are_offered_by_name(fleet: Fleet) -> None:
    """Those of the project that is meant, which begin so; by UUID where the name could not stand in a shell as it is."""
    odd = DOMAIN | {"name": "web $(reboot)", "uuid": UUID.replace("1b5e", "0000")}
    fleet.answer = lambda _: {"ok": True, "result": {"domains": [DOMAIN, DOMAIN | {"name": "app"}, odd]}}
    assert offered(["start"], "we") == ["web1"]
    assert offered(["--project", "blue", "wait"], "") == ["web1", "app", odd["uuid"]]
    assert [message.subject for message in fleet.asked] == ["virt.v1.api.default._.domains", "virt.v1.api.blue._.domains"]


def test_nodes_and_hypervisors_are_offered_to_their_options(fleet: Fleet) -> None:
    """Also to what is made from the registry of verbs."""
    fleet.answer = lambda _: {"ok": True, "result": {"nodes": [NODE, NODE | {"node": "n2"}]}}
    assert offered(["create-xml", "--node"], "n") == ["n1", "n2"]
    assert offered(["events", "--node"], "n2") == ["n2"]
    assert offered(["create-xml", "--hypervisor"], "") == ["test:///default", "test"]


def test_commands_are_offered_by_id_the_last_first(fleet: Fleet) -> None:
    """Those of which events told."""
    fleet.stored = [told(number, "command.succeeded", {}, commandid=f"c{number}") for number in (1, 2)]
    assert offered(["command"], "") == ["c2", "c1"]
    assert offered(["cancel"], "c1") == ["c1"]


def test_kinds_of_events_are_offered_without_a_broker() -> None:
    """Those that the library has a class for."""
    assert offered(["events", "--kind"], "life") == ["lifecycle"]
    assert {"command.succeeded", "node.online", "state.changed"} <= set(offered(["events", "--kind"], ""))


def test_contexts_are_offered_without_a_broker() -> None:
    """They stand in the file."""
    assert run(["context", "set", "lab", "--server", "nats://lab"]) == 0
    assert offered(["--context"], "") == ["lab"]
    assert offered(["context", "use"], "l") == ["lab"]


@pytest.mark.parametrize("answer", [{"ok": False, "error": {"code": "denied", "message": "no"}}, ["what"]])
def test_nothing_is_offered_where_the_answer_is_no(answer: Any, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell that waits for a word is no place to complain."""
    fleet.answer = lambda _: answer
    assert offered(["start"], "") == []
    assert tuple(capsys.readouterr()) == ("", "")


def test_a_broker_that_is_silent_does_not_hold_up_the_shell() -> None:
    """Not even where the command line says to wait for ever: the time is limited, and what comes of it is nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {**os.environ, "VIRTBUS_SERVER": f"nats://127.0.0.1:{silent.getsockname()[1]}", complete.VARIABLE: "bash_complete"}
        environment |= {"COMP_WORDS": "virtbus --wait start w", "COMP_CWORD": "3"}
        command = [sys.executable, "-m", "orchestrator.cli"]
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert complete.LIMIT_S < 0.8  # a shell waits a second, and Python takes the rest to start


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_one_that_it_takes(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It asks by the variable that is looked for; where the shell is here, it finds no fault in it."""
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{complete.VARIABLE}={shell}_complete" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)


def test_each_argument_that_names_a_domain_can_be_completed() -> None:
    """No command is forgotten."""
    made = group()
    forgotten = [
        name
        for name, command in made.commands.items()
        for parameter in command.params
        if parameter.name == "domain" and parameter._custom_shell_complete is None
    ]
    assert forgotten == []
