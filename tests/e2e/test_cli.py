"""`virtbus up` and the commands, as a person uses them: real processes, a real broker, libvirt's test driver."""

from __future__ import annotations

import json
import os
import queue
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

VIRTBUS = [sys.executable, "-m", "orchestrator.cli"]
XML = """<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"""
READY_S = 60.0
GONE_S = 2.0


class Up:
    """A running `virtbus up`."""

    def __init__(self, process: subprocess.Popen[str], home: Path) -> None:
        self.process = process
        self.home = home
        self.lines: list[str] = []
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    @property
    def server(self) -> str:
        """Where its broker listens, as it said."""
        return next(found[0] for line in self.lines if (found := re.search(r"nats://\S+", line)))

    def await_line(self, text: str) -> None:
        """Read what it says until a line with `text`."""
        while not any(text in line for line in self.lines):
            try:
                line = self._said.get(timeout=READY_S)
            except queue.Empty:
                pytest.fail(f"no {text!r} in {self.lines}\n{self.logs()}")
            assert line is not None, f"it ended without {text!r}: {self.lines}\n{self.logs()}"
            self.lines.append(line)

    def read(self) -> None:
        """Take in what it says; runs in a thread of its own."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line)
        self._said.put(None)

    def pids(self) -> list[int]:
        """Return the processes that it noted."""
        return [int(path.read_text()) for path in sorted(self.home.rglob("*.pid")) if "jetstream" not in path.parts]

    def logs(self) -> str:
        """Return what all its processes logged."""
        return "\n".join(path.read_text(errors="replace") for path in self.home.rglob("*.log*"))

    def run(self, *arguments: str) -> Any:
        """Run a command with --json and return its document; it must succeed."""
        ended = subprocess.run(
            [*VIRTBUS, "--server", self.server, "--json", *arguments], capture_output=True, text=True, timeout=30, check=False
        )
        assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr, self.logs())
        return json.loads(ended.stdout)


@contextmanager
def up(home: Path, *options: str) -> Iterator[Up]:
    """Run `virtbus up`; whatever the test left of it is killed."""
    command = [*VIRTBUS, "up", "--port", "0", "--data-dir", str(home), *options]
    # as from a terminal: a process group that a Ctrl-C reaches as a whole
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0) as process:
        system = Up(process, home)
        reading = threading.Thread(target=system.read)
        reading.start()
        try:
            yield system
        finally:
            process.kill()
            reading.join()


def gone_in_time(pids: list[int], act: Any, within_s: float) -> list[int]:
    """Do `act`; return which of `pids` have not ended `within_s` seconds later."""
    processes = {os.pidfd_open(pid): pid for pid in pids}
    end = time.monotonic() + within_s
    act()
    left = dict(processes)
    while left and time.monotonic() < end:
        for ended in select.select(list(left), [], [], max(0.0, end - time.monotonic()))[0]:
            del left[ended]
    for process in processes:
        os.close(process)
    return list(left.values())


def test_a_domain_lives_through_the_command_line(tmp_path: Path) -> None:
    """Two nodes, one domain from creation to its end, and its events beside it."""
    (tmp_path / "web1.xml").write_text(XML.format(name="web1"))
    with up(tmp_path / "d", "--nodes", "2") as system:
        system.await_line("ready;")
        assert [node["node"] for node in system.run("nodes")] == ["n1", "n2"]
        made = system.run("create-xml", "web1", "--file", str(tmp_path / "web1.xml"), "--node", "n2")
        assert (made["node"], made["changed"], made["domain"]["state"]) == ("n2", True, "running")
        assert system.run("start", "web1")["changed"] is False
        assert system.run("suspend", "web1")["domain"]["state"] == "paused"
        assert system.run("resume", "web1")["domain"]["state"] == "running"
        assert system.run("destroy", "web1")["domain"]["state"] == "shutoff"
        assert [(domain["name"], domain["state"], domain["node"]) for domain in system.run("domains")] == [("web1", "shutoff", "n2")]
        assert "<name>web1</name>" in system.run("xml", "web1")["xml"]
        assert system.run("undefine", "web1")["ok"] is True
        assert system.run("domains") == []
        told = followed(system.server, "lifecycle.undefined")
    names = [event["type"].removeprefix("virt.v1.lifecycle.") for event in told]
    steps = iter(names)
    assert all(step in steps for step in ("defined", "started", "suspended", "resumed", "stopped", "undefined")), names


def followed(server: str, last: str) -> list[dict[str, Any]]:
    """Return the lifecycle events of the last minutes up to the first called `last`, by `virtbus events`."""
    command = [*VIRTBUS, "--server", server, "events", "--json", "--since", "10m", "--kind", "lifecycle"]
    told: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        for line in events.stdout:
            told.append(json.loads(line))
            if told[-1]["type"].endswith(last):
                break
        events.send_signal(signal.SIGINT)
        _, complaint = events.communicate(timeout=10)
    assert "Traceback" not in complaint
    return told


def said(home: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run a command in the context of a config file in `home`; it must succeed, and say nothing beside its answer."""
    ended = subprocess.run(
        [*VIRTBUS, *arguments], capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "VIRTBUS_CONFIG": str(home / "config.toml"), **(environment or {})},
    )
    assert (ended.returncode, ended.stderr) == (0, ""), (arguments, ended)
    return ended.stdout


def test_people_look_at_a_fleet_and_at_what_becomes_of_it(tmp_path: Path) -> None:
    """A context instead of a URL; the doctor content; completion, lists, events until now, waiting, and a pipe that is left."""
    (tmp_path / "web1.xml").write_text(XML.format(name="web1"))
    with up(tmp_path / "d", "--nodes", "2") as system:
        system.await_line("ready;")
        said(tmp_path, "context", "set", "lab", "--server", system.server)
        findings = json.loads(said(tmp_path, "doctor", "-o", "json"))
        assert [finding for finding in findings if finding["verdict"] != "ok"] == []
        assert {"worker n1", "worker n2", "coordinator", "clock"} <= {finding["subject"] for finding in findings}
        said(tmp_path, "create-xml", "--file", str(tmp_path / "web1.xml"), "--node", "n2")
        assert said(tmp_path, "domains", "-q") == "web1\n"
        shell = {"_VIRTBUS_COMPLETE": "bash_complete", "COMP_WORDS": "virtbus wait w", "COMP_CWORD": "2"}
        offered = [said(tmp_path, environment=shell) for _ in range(5)]  # on a machine with much else to do, time may run out
        assert set(offered) - {""} == {"plain,web1\n"}
        waiting = [*VIRTBUS, "--server", system.server, "wait", "web1", "--state", "shutoff", "--timeout", "30"]
        with subprocess.Popen(waiting, stdout=subprocess.PIPE, text=True) as waits:
            said(tmp_path, "destroy", "web1")
            assert waits.communicate(timeout=30)[0] == "web1: shutoff on n2\n"
        told = said(tmp_path, "events", "--no-follow", "--kind", "lifecycle", "--domain", "web1").splitlines()
        assert [line.split()[4] for line in told] == ["lifecycle.defined", "lifecycle.started", "lifecycle.stopped"]
        assert left_by_its_reader(system.server) == (141, b"")


def left_by_its_reader(server: str) -> tuple[int, bytes]:
    """Follow events from long ago, leave after the first line, and return the exit code and what was complained of."""
    command = [*VIRTBUS, "--server", server, "events", "--since", "1h"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as events:
        assert events.stdout is not None
        assert events.stderr is not None
        os.read(events.stdout.fileno(), 1)
        events.stdout.close()
        while events.poll() is None:  # what is told next meets a closed pipe
            subprocess.run([*VIRTBUS, "--server", server, "suspend", "web1"], capture_output=True, timeout=30, check=False)
        return events.returncode, events.stderr.read()


def test_a_watched_list_is_drawn_anew_on_a_terminal_and_left_quietly(tmp_path: Path) -> None:
    """In colours, over itself; Ctrl-C ends it with nothing said."""
    (tmp_path / "web1.xml").write_text(XML.format(name="web1"))
    ours, theirs = os.openpty()
    with up(tmp_path / "d") as system:
        system.await_line("ready;")
        command = [*VIRTBUS, "--server", system.server, "domains", "--watch"]
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
        with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as watch:
            os.close(theirs)
            shown = seen(ours, b"NAME")
            system.run("create-xml", "--file", str(tmp_path / "web1.xml"))
            shown += seen(ours, b"\x1b[32mrunning")
            watch.send_signal(signal.SIGINT)
            assert watch.wait(10) == -signal.SIGINT
            assert watch.stderr is not None
            assert watch.stderr.read() == b""
        os.close(ours)
    assert b"\x1b[1F" in shown


def seen(terminal: int, wanted: bytes) -> bytes:
    """Read what a terminal shows until `wanted` is there."""
    shown = b""
    end = time.monotonic() + READY_S
    while wanted not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, shown
        shown += os.read(terminal, 65_536)
    return shown


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_within_two_seconds(how: signal.Signals, tmp_path: Path) -> None:
    """All processes are gone, no pid file is left, and no log has a traceback."""
    with up(tmp_path, "--nodes", "2") as system:
        system.await_line("ready;")
        pids = [system.process.pid, *system.pids()]
        assert len(pids) == 5
        assert gone_in_time(pids, lambda: os.killpg(system.process.pid, how), GONE_S) == []
        assert system.process.wait(5) == 0
    assert system.pids() == []
    assert "Traceback" not in system.logs()


def test_a_signal_while_it_starts_ends_everything_too(tmp_path: Path) -> None:
    """The broker runs, the coordinator is not there yet."""
    with up(tmp_path, "--nodes", "1") as system:
        system.await_line("broker ready")
        pids = [system.process.pid, *system.pids()]
        assert gone_in_time(pids, lambda: os.killpg(system.process.pid, signal.SIGINT), GONE_S) == []
        assert system.process.wait(5) == 0
    assert "Traceback" not in system.logs()


def test_nothing_outlives_an_up_that_was_killed(tmp_path: Path) -> None:
    """The kernel ends broker, coordinator and worker with it; the next `up` finds the directory free."""
    with up(tmp_path) as system:
        system.await_line("ready;")
        assert gone_in_time(system.pids(), system.process.kill, GONE_S) == []
    with up(tmp_path) as again:
        again.await_line("ready;")


def test_what_is_killed_comes_back(tmp_path: Path) -> None:
    """A worker, the coordinator and the broker each; then commands go on."""
    with up(tmp_path) as system:
        system.await_line("ready;")
        for part in ("n1/worker", "coordinator", "broker"):
            name = "worker n1" if part == "n1/worker" else part
            os.kill(int((tmp_path / f"{part}.pid").read_text()), signal.SIGKILL)
            system.await_line(f"{name} ended")
            system.lines = [system.lines[0]]
            system.await_line(f"{name} ready")
        assert system.run("nodes")[0]["node"] == "n1"


def test_a_second_up_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """One sentence that names who has it, exit code 1, and the first goes on."""
    with up(tmp_path) as system:
        system.await_line("ready;")
        second = subprocess.run(
            [*VIRTBUS, "up", "--port", "0", "--data-dir", str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
        )
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr == (
            f"{tmp_path} is in use by another 'virtbus up' (pid {system.process.pid}); stop that, or choose another --data-dir\n"
        )
        assert system.run("nodes")[0]["node"] == "n1"


def test_a_part_that_cannot_start_ends_everything_with_its_own_sentence(tmp_path: Path) -> None:
    """Exit code 2, one line on stderr, and nothing left running."""
    (tmp_path / "n1" / "journal.db").mkdir(parents=True)
    ended = refused(tmp_path, "--port", "0")
    assert ended.returncode == 2
    assert re.fullmatch(r"worker n1 did not start: [^\n]*journal[^\n]*\n", ended.stderr)
    assert list(tmp_path.glob("*.pid")) == []


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    """And the remedy named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = refused(tmp_path, "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert re.fullmatch(r"port \d+ of this machine is in use; choose another --port, or 0 for a free one\n", ended.stderr)


def refused(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run an `up` that ends by itself."""
    command = [*VIRTBUS, "up", "--data-dir", str(home), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
