"""Whatever a person does wrong, or the broker: one plain sentence, the right exit code, no traceback."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.bus.port import Unavailable, Uncertain
from orchestrator.cli import session
from orchestrator.cli.entry import run
from tests.unit.cli.conftest import Fleet


class Failing:
    """A connection that comes to nothing."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def __aenter__(self) -> None:
        """Fail."""
        raise self.error

    async def __aexit__(self, *exc: object) -> None:
        """Never called."""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fly"], "No such command 'fly'"),
        (["start"], "Missing argument 'DOMAIN'"),
        (["start", "web1", "--id", "m-1"], "'m-' begins the ids that virtbus gives itself"),
        (["start", "web1", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["start", "web1", "--if-state", "flying"], "Invalid value for '--if-state'"),
        (["--project", "a.b", "nodes"], "'a.b' is no token"),
        (["nodes", "--project", "_"], "'_' is no token"),
        (["--prefix", "a b", "nodes"], "'a b' is no token"),
        (["create-xml", "web1"], "Missing option '--file'"),
        (["create-xml", "web1", "--file", "/nowhere/x.xml"], "No such file or directory"),
        (["events", "--since", "yesterday"], "'yesterday' is no time"),
        (["wait", "web1", "--state", "flying"], "Invalid value for '--state'"),
        (["wait", "web1", "--state", "gone", "--state", "running"], "--state gone goes with no other"),
        (["-o", "xml", "nodes"], "'xml' is not one of 'table', 'json', 'yaml'"),
        (["up", "--nodes", "0"], "Invalid value for '--nodes'"),
        (["up", "--nodes", "2", "--hypervisor", "qemu:///system"], "all 2 nodes would have the same hypervisor"),
        (["--server", "http://localhost", "nodes"], "the broker's URL cannot be used"),
    ],
)
def test_a_wrong_command_line_exits_2_with_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence says what is wrong and where to read more; stdout stays empty."""
    assert run(arguments) == 2
    output, complaint = capsys.readouterr()
    assert output == ""
    assert sentence in complaint
    assert complaint.count("\n") == 1


def test_a_wrong_command_line_is_json_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs find the error on stdout, people the same sentence on stderr."""
    assert run(["--json", "start"]) == 2
    output, complaint = capsys.readouterr()
    error = json.loads(output)["error"]
    assert (error["code"], error["message"]) == ("invalid", complaint.strip())


def test_a_file_that_is_no_text_exits_2(fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is sent."""
    path = tmp_path / "x.xml"
    path.write_bytes(b"\xff\xfe")
    assert run(["create-xml", "web1", "--file", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"cannot read {path}: ")
    assert fleet.asked == []


@pytest.mark.parametrize("xml", ["<domain", "<domain/>", "<!DOCTYPE x><domain/>"])
def test_xml_that_names_no_domain_exits_1(xml: str, fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where neither the command line nor the XML gives a name, nothing is sent."""
    path = tmp_path / "x.xml"
    path.write_text(xml)
    assert run(["create-xml", "--file", str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert fleet.asked == []


@pytest.mark.parametrize("error", [Unavailable("no broker answers at nats://x:1"), Uncertain("no answer came")])
def test_a_broker_that_cannot_be_used_exits_2(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the bus's own sentence."""
    monkeypatch.setattr(session, "connected", lambda _: Failing(error))
    assert run(["nodes"]) == 2
    assert tuple(capsys.readouterr()) == ("", f"{error}\n")


def test_an_answer_that_cannot_be_read_exits_1(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A coordinator of another kind is no reason for a traceback."""
    fleet.answer = lambda _: ["what"]
    assert run(["nodes"]) == 1
    assert "the answer cannot be read" in capsys.readouterr().err


def test_ctrl_c_is_quiet() -> None:
    """Ends the process as any program without a handler, and nothing is said."""
    command = [sys.executable, "-m", "orchestrator.cli", "--wait", "--verbose", "--server", "nats://127.0.0.1:1", "nodes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate(timeout=10)
    assert "bus." in first
    assert (process.returncode, output) == (-signal.SIGINT, "")
    assert "Traceback" not in complaint


def test_help_is_cheap() -> None:
    """What is slow to import is not on its way."""
    code = "import json, sys; from orchestrator.cli.entry import run; run(['--help']); print(json.dumps(list(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True, text=True).stdout
    loaded = set(json.loads(shown.splitlines()[-1]))
    slow = {"nats", "structlog", "rich", "anyio", "asyncio", "libvirt", "lxml", "ssl", "importlib.metadata", "tomllib", "tomlkit", "yaml"}
    assert loaded & slow == set()


def test_help_takes_a_fifth_of_a_second_at_most() -> None:
    """Of the processor's time, which does not depend on what else the machine does; the best of three."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "orchestrator.cli", "--help"], stdout=subprocess.DEVNULL, timeout=30, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.2


def test_a_verb_that_a_package_offers_is_a_command(tmp_path: Path) -> None:
    """Installed beside us, named as an entry point, and listed in the help like those of our own."""
    (tmp_path / "mine-1.0.dist-info").mkdir()
    (tmp_path / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (tmp_path / "mine-1.0.dist-info" / "entry_points.txt").write_text("[virtbus.verbs]\nmine-trim = mine:TRIM\n")
    code = "from orchestrator.protocol.verb import Verb\nTRIM = Verb(name='mine-trim', summary='give unused blocks back')\n"
    (tmp_path / "mine.py").write_text(code)
    command = [sys.executable, "-m", "orchestrator.cli", "--help"]
    shown = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=True)
    assert re.search(r"^  mine-trim +give unused blocks back$", shown.stdout, re.MULTILINE)


def test_the_schema_has_the_arguments_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb points at a definition that is there."""
    assert run(["schema"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {verb["args"].rpartition("/")[2] for verb in document["verbs"].values()} <= document["$defs"].keys()
    assert document["$defs"]["XmlArgs"]["required"] == ["xml"]
