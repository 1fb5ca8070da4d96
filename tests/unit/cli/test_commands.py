"""Commands, their output and exit codes, before a coordinator that answers what the test says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bus.port import Message, Outgoing
from orchestrator.cli.entry import run
from orchestrator.protocol import codec
from orchestrator.protocol.event import event
from orchestrator.protocol.verb import VERBS
from tests.unit.cli.conftest import Fleet

UUID = "6f1c1b5e-0000-4000-8000-000000000001"
XML = "<domain type='test'><name>web1</name></domain>"
DOMAIN = {
    "uuid": UUID, "name": "web1", "project": "default", "node": "n1", "hypervisor": "test:///default", "type": "test", "state": "running",
    "reason": "booted", "persistent": True, "autostart": False, "vcpus": 2, "memory_kib": 1048576, "labels": {"tier": "web"},
    "generation": 0, "incarnation": None, "role": "owner", "epoch": "01JD", "sequence": "0" * 16, "updated": "2026-01-01T00:00:00Z",
    "saved": False,
}
NODE = {
    "node": "n1", "epoch": "01JD", "version": "0.1.0", "arch": "x86_64", "cpus": 4, "memory_kib": 2097152, "free_memory_kib": 1048576,
    "hypervisors": [{"uri": "test:///default", "types": ["test"], "version": "9.0", "verbs": [], "events": [], "connected": True}],
    "allocated": {"vcpus": 0, "memory_kib": 0}, "domain_count": 1, "labels": {}, "schedulable": True, "updated": "2026-01-01T00:00:00Z",
}
LEASE = {"node": "n1", "epoch": "01JD", "cursor": 0, "done": 0, "updated": "2026-01-01T00:00:00Z"}


def done(message: Message, **more: Any) -> dict[str, Any]:
    """Answer a command that was carried out."""
    id, verb = json.loads(message.body)["id"], message.subject.rpartition(".")[2]
    result = {"id": id, "verb": verb, "ok": True, "changed": True, "node": "n1", "project": "default"}
    return result | {"domain": {"uuid": UUID, "name": "web1", "state": "running"}, "duration_ms": 12.3} | more


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS.values() if verb.kind == "verb"])
def test_each_verb_of_the_registry_is_a_command(verb: str, fleet: Fleet, tmp_path: Path) -> None:
    """It goes out on the verb's subject, and its result is one line."""
    fleet.answer = done
    (tmp_path / "x.xml").write_text(XML)
    files = ["--file", str(tmp_path / "x.xml")] if VERBS[verb].creates else []
    assert run([verb, "web1", *files]) == 0
    assert [message.subject for message in fleet.asked] == [f"virt.v1.api.default.web1.{verb}"]


def test_a_result_is_one_line_for_people(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """What was done, to what, where, and how long it took."""
    fleet.answer = done
    assert run(["start", "web1"]) == 0
    assert capsys.readouterr().out == "start web1: done, running on n1, 12 ms\n"


def test_a_repeat_without_effect_says_that_there_was_nothing_to_do(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """`changed` False is told apart from an effect."""
    fleet.answer = lambda message: done(message, changed=False)
    assert run(["start", "web1"]) == 0
    assert capsys.readouterr().out == "start web1: nothing to do, running on n1, 12 ms\n"


@pytest.mark.parametrize("arguments", [["--json", "start", "web1", "--id", "one"], ["start", "web1", "--id", "one", "--json"]])
def test_json_is_the_result_itself_wherever_the_option_stands(
    arguments: list[str], fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """One document, with the names of the wire."""
    fleet.answer = done
    assert run(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["id"], result["ok"], result["domain"]["uuid"]) == ("one", True, UUID)


def test_options_become_the_body(fleet: Fleet) -> None:
    """Arguments, time, condition and project stand where the protocol wants them."""
    fleet.answer = done
    arguments = ["--disabled", "--timeout", "5", "--if-state", "running", "--if-generation", "3", "--id", "one", "--project", "blue"]
    assert run(["set-autostart", "web1", *arguments]) == 0
    assert fleet.asked[0].subject == "virt.v1.api.blue.web1.set-autostart"
    condition = {"state": "running", "generation": 3}
    assert json.loads(fleet.asked[0].body) == {"id": "one", "args": {"enabled": False}, "timeout_s": 5.0, "if": condition}


def test_xml_comes_from_a_file_or_from_stdin(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name is left out, it is the XML's."""
    fleet.answer = done
    (tmp_path / "x.xml").write_text(XML)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(XML.encode())))
    assert run(["create-xml", "--file", str(tmp_path / "x.xml"), "--node", "n1"]) == 0
    assert run(["create-xml", "web1", "--file", "-"]) == 0
    assert [message.subject for message in fleet.asked] == ["virt.v1.api.default.web1.create-xml"] * 2
    assert [json.loads(message.body)["args"] for message in fleet.asked] == [{"xml": XML, "node": "n1"}, {"xml": XML}]


def test_no_wait_leaves_the_command_in_the_log(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is asked; the id is printed, by which events tell the end."""
    assert run(["--json", "start", "web1", "--no-wait"]) == 0
    assert fleet.asked == []
    assert [message.subject for message in fleet.posted] == ["virt.v1.cmd.default.web1.start"]
    assert json.loads(capsys.readouterr().out) == {"id": json.loads(fleet.posted[0].body)["id"]}


def test_a_failed_command_exits_1_with_one_sentence(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The message of the failure, on stderr; control characters that a hypervisor put into it do not reach the terminal."""
    fleet.answer = lambda message: done(message, ok=False, error={"code": "not_found", "message": "no domain\x1b[31m web1\n"})
    assert run(["start", "web1"]) == 1
    assert tuple(capsys.readouterr()) == ("", "no domain [31m web1 \n")


def test_a_failed_command_is_its_result_in_json(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole result on stdout, the sentence on stderr all the same."""
    fleet.answer = lambda message: done(message, ok=False, error={"code": "not_found", "message": "no domain web1"})
    assert run(["--json", "start", "web1"]) == 1
    output, complaint = capsys.readouterr()
    assert json.loads(output)["error"] == {"code": "not_found", "message": "no domain web1"}
    assert complaint == "no domain web1\n"


def test_a_refusal_without_a_result_exits_1(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """What never became a command has an error and nothing else."""
    fleet.answer = lambda _: {"ok": False, "error": {"code": "conflict", "message": "two domains are called web1"}}
    assert run(["--json", "get", "web1"]) == 1
    output, complaint = capsys.readouterr()
    assert json.loads(output)["error"]["code"] == "conflict"
    assert complaint == "two domains are called web1\n"


def test_nodes_are_a_table_or_a_list_of_records(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns for people, the records of the wire for programs, and whether each is online; one without a lease is not."""
    fleet.answer = lambda _: {"ok": True, "result": {"nodes": [NODE, NODE | {"node": "n2"}]}}
    fleet.stored = [Outgoing("$KV.virt_leases.n1", codec.encode(LEASE))]
    assert run(["nodes"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NODE  STATE    HYPERVISORS      DOMAINS  CPUS  FREE      MEMORY    SCHEDULABLE",
        "n1    online   test:///default  1        4     1024 MiB  2048 MiB  yes",
        "n2    offline  test:///default  1        4     1024 MiB  2048 MiB  yes",
    ]
    assert run(["nodes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(node["node"], node["online"]) for node in listed] == [("n1", True), ("n2", False)]
    assert NODE.items() <= listed[0].items()


def test_domains_are_those_of_the_project_or_all(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The project is a token of the subject, `_` for all."""
    fleet.answer = lambda _: {"ok": True, "result": {"domains": [DOMAIN]}}
    assert run(["domains"]) == 0
    assert run(["--json", "domains", "--all"]) == 0
    _, row, listed = capsys.readouterr().out.splitlines()
    assert row.split() == ["web1", "running", "n1", "2", "1024", "MiB", UUID]
    assert json.loads(listed) == [DOMAIN]
    assert [message.subject for message in fleet.asked] == ["virt.v1.api.default._.domains", "virt.v1.api._._.domains"]


def test_one_domain_is_its_fields(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each; what is no word stands as JSON."""
    fleet.answer = lambda _: {"ok": True, "result": {"domain": DOMAIN}}
    assert run(["get", "web1"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["name"], lines["vcpus"], lines["labels"]) == ("web1", "2", '{"tier":"web"}')


def test_xml_and_stats_are_asked_of_the_node(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """XML comes as it is; figures a line each."""
    results = {"get": {"domain": DOMAIN}, "xml": {"xml": f"{XML}\n"}, "stats": {"stats": {"vcpu.current": 2}}}
    fleet.answer = lambda message: {"ok": True, "result": results[message.subject.rpartition(".")[2]]}
    assert run(["xml", "web1"]) == 0
    assert run(["stats", "web1"]) == 0
    assert capsys.readouterr().out == f"{XML}\nvcpu.current  2\n"
    assert fleet.asked[1].subject == f"virt.v1.ask.n1.default.{UUID}.xml"


def test_what_is_recorded_of_a_command_is_shown(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for by its id."""
    fleet.answer = lambda _: {"ok": True, "result": {"command": {"phase": "ended"}}}
    assert run(["--json", "command", "one"]) == 0
    assert json.loads(capsys.readouterr().out) == {"phase": "ended"}
    assert json.loads(fleet.asked[0].body)["args"] == {"id": "one"}


def told(number: int, name: str, data: dict[str, Any], commandid: str | None = None) -> Outgoing:
    """Return an event to store."""
    value = event(
        prefix="virt", name=name, source="/virt/nodes/n1", node="n1", project="default", subject=UUID, time="2026-01-01T00:00:00Z",
        epoch="01JD0000000000000000000000", sequence=number, previous=0, data=data, domainname="web1",
        commandid=commandid,
    )
    return Outgoing(f"virt.v1.evt.n1.default.{UUID}.{name}", codec.encode(value))


class Enough(Exception):
    """Ends a feed, which has no end of its own."""


def follow(arguments: list[str], count: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a command line until it printed `count` lines, and return them."""
    lines: list[str] = []

    def echo(line: str | bytes, **_: Any) -> None:
        lines.append(line.decode() if isinstance(line, bytes) else line)
        if len(lines) == count:
            raise Enough

    monkeypatch.setattr("click.echo", echo)
    with pytest.raises(Enough):
        run(arguments)
    return lines


def test_events_are_a_line_each(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, node, project, domain, name and what the event says; of a command how it ended."""
    failure = {"code": "not_found", "message": "gone"}
    fleet.stored = [
        told(1, "lifecycle.started", {"event": "started", "detail": "booted"}),
        told(2, "command.failed", {"id": "one", "verb": "start", "ok": False, "error": failure, "duration_ms": 1.0}),
    ]
    assert follow(["events", "--since", "2020-01-01T00:00:00Z"], 2, monkeypatch) == [
        "2026-01-01T00:00:00Z  n1  default  web1  lifecycle.started  event=started detail=booted",
        "2026-01-01T00:00:00Z  n1  default  web1  command.failed  verb=start id=one error=gone",
    ]


def test_events_in_json_are_the_documents_of_the_log(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is the CloudEvent as it was stored."""
    fleet.stored = [told(1, "lifecycle.started", {"event": "started"}), told(2, "lifecycle.stopped", {"event": "stopped"})]
    lines = follow(["events", "--json", "--since", "365d", "--kind", "lifecycle.stopped"], 1, monkeypatch)
    assert [json.loads(line) for line in lines] == [json.loads(fleet.stored[1].body)]


def test_waiting_ends_when_the_domain_is_as_wanted(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown as it is then; one that is gone is shown as gone."""
    fleet.answer = lambda _: {"ok": True, "result": {"domain": DOMAIN}}
    assert run(["wait", "web1", "--state", "paused", "--state", "running", "--timeout", "5"]) == 0
    assert capsys.readouterr().out == "web1: running on n1\n"
    fleet.answer = lambda _: {"ok": False, "error": {"code": "not_found", "message": "no domain web1"}}
    assert run(["wait", "web1", "--state", "gone", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) is None


def test_waiting_in_vain_exits_1(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence says what the domain is instead."""
    fleet.answer = lambda _: {"ok": True, "result": {"domain": DOMAIN}}
    assert run(["wait", "web1", "--state", "shutoff", "--timeout", "0.1"]) == 1
    assert "running" in capsys.readouterr().err


def test_a_command_is_cancelled_by_its_id(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """With or without its domain; what can no more be cancelled is a no."""
    fleet.answer = done
    assert run(["cancel", "one", "--domain", "web1"]) == 0
    assert run(["cancel", "one"]) == 0
    assert [message.subject for message in fleet.asked] == ["virt.v1.api.default.web1.cancel", "virt.v1.api.default._.cancel"]
    assert [json.loads(message.body)["args"] for message in fleet.asked] == [{"id": "one"}] * 2
    capsys.readouterr()
    fleet.answer = lambda message: done(message, ok=False, error={"code": "conflict", "message": "it has begun"})
    assert run(["cancel", "one"]) == 1
    assert capsys.readouterr().err == "it has begun\n"
