"""Contexts: what holds when several say where to, what a wrong file is answered with, and that the user's file stays the user's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import pytest

from orchestrator.cli import contexts
from orchestrator.cli.entry import run
from orchestrator.cli.settings import SERVER, Settings

LAB = """\
current = "lab"  # the one upstairs

[contexts.lab]
server = "nats://lab:4222"  # not the old one
creds = "lab.creds"
project = "blue"

[contexts.far]
server = "tls://alice:secret@far:4222"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the config file of this test, with two contexts."""
    path = tmp_path / "config.toml"
    path.write_text(LAB)
    return path


def settings(file: Path, environment: dict[str, str] | None = None, **given: str) -> Settings:
    """Return settings with that file, environment and command line."""
    made = Settings({"VIRTBUS_CONFIG": str(file), **(environment or {})})
    made.given.update(given)
    return made


@pytest.mark.parametrize(
    ("environment", "given", "server"),
    [
        ({}, {}, "nats://lab:4222"),
        ({"VIRTBUS_CONTEXT": "far"}, {}, "tls://alice:secret@far:4222"),
        ({"VIRTBUS_SERVER": "nats://env"}, {}, "nats://env"),
        ({"VIRTBUS_SERVER": "nats://env", "VIRTBUS_CONTEXT": "far"}, {}, "nats://env"),
        ({"VIRTBUS_SERVER": "nats://env"}, {"context": "far"}, "tls://alice:secret@far:4222"),
        ({"VIRTBUS_SERVER": "nats://env"}, {"context": "far", "server": "nats://flag"}, "nats://flag"),
    ],
)
def test_the_nearest_says_where_to(file: Path, environment: dict[str, str], given: dict[str, str], server: str) -> None:
    """Options go before a context that is named there, that before the environment, that before the context in use."""
    assert settings(file, environment, **given).server == server


def test_without_a_file_it_is_this_machine(tmp_path: Path) -> None:
    """A file that is not there says nothing."""
    here = settings(tmp_path / "none.toml")
    assert (here.server, here.creds, here.owner, here.prefix, here.context) == (SERVER, None, "default", "virt", None)


def test_credentials_never_go_to_a_server_that_they_were_not_meant_for(file: Path) -> None:
    """A nearer server leaves the context's credentials behind; given with it, or for the context's own server, they count."""
    assert settings(file).creds == str(file.parent / "lab.creds")
    assert settings(file, {"VIRTBUS_SERVER": "nats://env"}).creds is None
    assert settings(file, server="nats://flag").creds is None
    assert settings(file, {"VIRTBUS_CREDS": "/a.creds"}, server="nats://flag").creds is None
    assert settings(file, {"VIRTBUS_CREDS": "/a.creds"}).creds == "/a.creds"


def test_a_context_in_use_is_left_out_for_another_server(file: Path) -> None:
    """What it says holds for its own fleet; only one that is asked for by name goes together with another server."""
    assert settings(file).owner == "blue"
    assert settings(file, {"VIRTBUS_SERVER": "nats://env"}).owner == "default"
    assert settings(file, {"VIRTBUS_SERVER": "nats://env", "VIRTBUS_PROJECT": "red"}).owner == "red"
    assert settings(file, server="nats://flag").owner == "default"
    assert settings(file, server="nats://flag", context="lab").owner == "blue"
    assert settings(file, server="nats://flag", context="lab").creds is None


def test_what_runs_here_takes_nothing_from_the_context_in_use(file: Path) -> None:
    """`virtbus up` makes a fleet of its own."""
    file.write_text(LAB.replace('project = "blue"', 'prefix = "lab"'))
    assert settings(file).prefix == "lab"
    assert settings(file).here().prefix == "virt"
    assert settings(file, {"VIRTBUS_PREFIX": "env"}).here().prefix == "env"


def test_a_file_is_not_read_where_nobody_needs_it(tmp_path: Path) -> None:
    """Children of `up` are told everything, and a broken file does not hold them up."""
    (tmp_path / "config.toml").write_text("nonsense")
    told = settings(tmp_path / "config.toml", {"VIRTBUS_SERVER": "nats://env", "VIRTBUS_PREFIX": "virt"})
    assert (told.server, told.creds, told.prefix) == ("nats://env", None, "virt")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = [", "is no TOML"),
        ("current = 'lab'\nserver: nats://lab", "line 2"),
        ("contexts = 3", "contexts must be a table"),
        ("colour = 'red'", "colour is unknown; known are current and contexts"),
        ("current = 3", "current must be a string"),
        ("[contexts]\nlab = 3", "contexts.lab must be a table"),
        ("[contexts.lab]\nsever = 'x'", "contexts.lab.sever is unknown; known are server, creds"),
        ("[contexts.lab]\nserver = 3", "contexts.lab.server must be a string"),
        ("[contexts.lab]\nproject = 'a.b'", "contexts.lab.project is 'a.b', which is no token"),
        ("current = 'gone'", "there is no context 'gone' (there are: none); 'virtbus context set gone --server URL' makes it"),
    ],
)
def test_a_wrong_file_is_named_with_place_and_remedy(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, before anything is connected to."""
    (tmp_path / "config.toml").write_text(text)
    assert run(["nodes"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(str(tmp_path / "config.toml"))
    assert sentence in complaint
    assert complaint.count("\n") == 1


def test_writing_keeps_what_the_user_wrote(file: Path) -> None:
    """Comments, order, and fields that were not given stay; the file is its owner's alone."""
    contexts.put(file, "lab", {"project": "red"})
    contexts.put(file, "new", {"server": "nats://new"})
    contexts.use(file, "new")
    text = file.read_text()
    assert "# the one upstairs" in text
    assert "# not the old one" in text
    config = contexts.read(file)
    assert (config.current, list(config.contexts)) == ("new", ["lab", "far", "new"])
    assert config.contexts["lab"] == {"server": "nats://lab:4222", "creds": "lab.creds", "project": "red"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(file.parent) == [file.name]  # noqa: PTH208  nothing is left beside it


def test_a_file_behind_a_link_stays_behind_it(file: Path) -> None:
    """People keep such files elsewhere, and link to them."""
    link = file.parent / "link.toml"
    link.symlink_to(file)
    contexts.use(link, "far")
    assert link.is_symlink()
    assert contexts.read(file).current == "far"


def test_current_is_put_before_the_tables_of_a_file_without_it(file: Path) -> None:
    """Behind them it would belong to the last one."""
    file.write_text(f"# mine\n{LAB.partition(chr(10))[2]}")
    contexts.use(file, "far")
    assert contexts.read(file).current == "far"
    assert "# mine" in file.read_text()


def test_a_file_that_cannot_be_written_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left half done: the new content is made beside it first."""
    (tmp_path / "place").write_text("")
    monkeypatch.setattr(contexts, "read", lambda path: contexts.Config(path=path))
    with pytest.raises(click.ClickException, match="cannot be written: "):
        contexts.put(tmp_path / "place" / "config.toml", "lab", {"server": "nats://x"})
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_contexts_are_made_used_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first one is in use at once; when it goes, none is."""
    (tmp_path / "a.creds").write_text("x")
    assert run(["context", "set", "lab", "--server", "nats://lab:4222", "--creds", str(tmp_path / "a.creds")]) == 0
    assert run(["context", "set", "far", "--server", "nats://far:4222", "--project", "red"]) == 0
    capsys.readouterr()
    assert run(["context", "list", "-o", "json"]) == 0
    lab, far = json.loads(capsys.readouterr().out)
    assert lab == {"name": "lab", "current": True, "server": "nats://lab:4222", "creds": str(tmp_path / "a.creds")}
    assert far == {"name": "far", "current": False, "server": "nats://far:4222", "project": "red"}
    assert run(["context", "use", "far"]) == 0
    assert run(["context", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["*", "far", "nats://far:4222", "red", "-", "-"]
    assert run(["context", "remove", "far"]) == 0
    capsys.readouterr()
    assert run(["context", "-o", "json"]) == 0
    assert [(each["name"], each["current"]) for each in json.loads(capsys.readouterr().out)] == [("lab", False)]
    assert contexts.read(tmp_path / "config.toml").current is None


def test_a_server_named_by_a_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is kept whole."""
    monkeypatch.chdir(tmp_path)
    assert run(["context", "set", "lab", "--server", "file:keys/server"]) == 0
    assert contexts.read(tmp_path / "config.toml").contexts["lab"]["server"] == f"file:{tmp_path}/keys/server"


def test_passwords_are_not_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither of one context, nor of all, nor of what holds now."""
    assert file.exists()
    for arguments in (["context", "show", "far"], ["context", "list"], ["--context", "far", "context", "show", "--json"]):
        assert run(arguments) == 0
        output = capsys.readouterr().out
        assert "far:4222" in output
        assert "secret" not in output
    assert contexts.shown("nats://token@a:1,nats://b:2") == "nats://***@a:1,nats://b:2"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["context", "use", "none"], "there is no context 'none' (there are: lab, far)"),
        (["context", "remove", "none"], "there is no context 'none'"),
        (["context", "set", "new"], "there is no context 'new' yet; give its --server"),
        (["context", "set", "a.b", "--server", "nats://x"], "'a.b' is no token"),
        (["context", "set", "new", "--server", "nats://x", "--creds", "/nowhere/x.creds"], "'/nowhere/x.creds' does not exist"),
        (["--context", "none", "nodes"], "there is no context 'none'"),
    ],
)
def test_a_context_that_cannot_be_meant_exits_2(
    arguments: list[str], sentence: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one sentence, and the file as it was."""
    assert run(arguments) == 2
    complaint = capsys.readouterr().err
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert file.read_text() == LAB
