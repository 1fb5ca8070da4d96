"""The examples in `docs/examples` do what they say, against a real broker, coordinator and worker with libvirt's test driver."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pytest

from docs.examples.driver import Careful
from tests import hypervisors
from tests.e2e.shell import ROOT, Shell, free_port
from workers.drivers.port import Rejected
from workers.testing import Bench, DriverContract
from workers.testing.stage import Stage

EXAMPLES = ROOT / "docs" / "examples"
MODULES = EXAMPLES / "node_modules"
XML = "<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One installation for all of this module."""
    with Shell(tmp_path_factory.mktemp("examples")) as shell:
        shell.begin(sys.executable, "-m", "orchestrator.cli", "up", "--port", str(shell.port), until="ready;")
        yield shell


def virtbus(shell: Shell, *arguments: str) -> Any:
    """Run a command and return its answer."""
    return json.loads(shell.run(sys.executable, "-m", "orchestrator.cli", "--json", *arguments))


def live_and_die(shell: Shell, name: str) -> None:
    """Create a domain and remove it."""
    (shell.home / "domain.xml").write_text(XML.format(name=name))
    virtbus(shell, "create-xml", name, "--file", "domain.xml")
    virtbus(shell, "destroy", name)
    virtbus(shell, "undefine", name)


def test_publish(shell: Shell) -> None:
    """A repeat under the same id creates nothing, a second suspend changes nothing, and nothing is left."""
    said = shell.run(sys.executable, str(EXAMPLES / "publish.py"), shell.server)
    assert ["created once on n1", "paused: True", "paused: False"] == said.splitlines()
    assert [] == virtbus(shell, "domains")


def test_publish_from_javascript(shell: Shell) -> None:
    """The same by nats.js."""
    node = shutil.which("node")
    if node is None or not MODULES.exists():
        pytest.skip("'tools/setup node' was not run")
    said = shell.run(node, str(EXAMPLES / "publish.mjs"), shell.server)
    assert ["web2 is running on n1", "destroy true", "undefine true"] == said.splitlines()
    assert [] == virtbus(shell, "domains")


def test_subscribe(shell: Shell) -> None:
    """What was before is replayed, what comes is followed, and Ctrl-C ends it without a word."""
    live_and_die(shell, "before")
    following = shell.begin(sys.executable, str(EXAMPLES / "subscribe.py"), shell.server)
    following.until("before undefined")
    live_and_die(shell, "after")
    said = following.until("after undefined")
    told = [line.split()[2] for line in said.splitlines() if " after " in line]
    assert ["defined", "started", "stopped", "undefined"] == told
    assert "" == following.interrupt()


class Receiver(BaseHTTPRequestHandler):
    """Takes what is posted, into `taken`, but refuses the first."""

    taken: SimpleQueue[dict[str, Any]] = SimpleQueue()
    refused = False

    def do_POST(self) -> None:
        """Answer one post."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        first, Receiver.refused = not Receiver.refused, True
        self.send_response(503 if first else 204)
        self.end_headers()
        if not first:
            self.taken.put(json.loads(body))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """Give a web server that takes events."""
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def received(name: str) -> list[dict[str, Any]]:
    """Return the events that the receiver takes, up to the last of the domain `name`."""
    events: list[dict[str, Any]] = []
    while not events or (events[-1].get("domainname"), events[-1]["data"].get("verb")) != (name, "undefine"):
        events.append(Receiver.taken.get(timeout=60))
    return events


def test_webhook(shell: Shell, receiver: HTTPServer) -> None:
    """Refused, killed and started again, it leaves nothing out and keeps the order."""
    command = (sys.executable, str(EXAMPLES / "webhook.py"), shell.server, f"http://127.0.0.1:{receiver.server_port}/", "place")
    bridge = shell.begin(*command)
    live_and_die(shell, "first")
    events = received("first")
    bridge.kill()
    live_and_die(shell, "second")
    bridge = shell.begin(*command)
    events += received("second")
    bridge.kill()
    places = [(event["epoch"], event["sequence"]) for event in events if event["node"] == "n1"]
    assert sorted(places) == places
    for name in ("first", "second"):
        lived = [event["data"]["event"] for event in events if event.get("domainname") == name and ".lifecycle." in event["type"]]
        assert ["defined", "started", "stopped", "undefined"] == list(dict.fromkeys(lived))


def test_service(shell: Shell) -> None:
    """It is a node; what it is asked by HTTP happens; Ctrl-C ends service and worker."""
    port = free_port()
    service = shell.begin(
        sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", str(port), "service:app", until="startup complete"
    )
    (shell.home / "domain.xml").write_text(XML.format(name="web3"))
    assert "service" == virtbus(shell, "define-xml", "web3", "--file", "domain.xml", "--node", "service")["node"]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/web3/start", method="POST")
    with urllib.request.urlopen(request) as answer:  # noqa: S310  our own server
        assert "running" == json.load(answer)["domain"]["state"]
    nobody = urllib.request.Request(f"http://127.0.0.1:{port}/nobody/start", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(nobody)  # noqa: S310  as above
    assert 409 == refused.value.code
    refused.value.close()
    virtbus(shell, "destroy", "web3")
    virtbus(shell, "undefine", "web3")
    assert "" == service.interrupt()


class TestDriver(DriverContract):
    """The driver of one's own keeps the laws of all drivers."""

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        """Return a bench on the process's shared test hypervisor, held so that its domains outlive the driver's connection."""
        with hypervisors.held("test:///default"):
            yield Bench(driver=Careful("careful+test:///default"), xml=hypervisors.test_xml)

    def test_what_is_to_be_kept_cannot_be_undefined(self, stage: Stage) -> None:
        """By its name, whoever asks."""
        guest = stage.guest()
        guest.name = f"keep-{guest.name}"
        guest.define(hypervisors.test_xml(guest.name, guest.uuid))
        with pytest.raises(Rejected, match="is to be kept"):
            guest.run("undefine")
        with hypervisors.held("test:///default") as connection:
            connection.lookupByUUIDString(guest.uuid).undefine()


RUN = {
    "driver.py": TestDriver,
    "publish.mjs": test_publish_from_javascript,
    "publish.py": test_publish,
    "service.py": test_service,
    "subscribe.py": test_subscribe,
    "webhook.py": test_webhook,
}


def test_every_example_is_run_here_and_short() -> None:
    """At most 30 lines each."""
    examples = {path.name: path for suffix in ("py", "mjs") for path in EXAMPLES.glob(f"*.{suffix}")}
    assert set(RUN) == set(examples)
    assert [] == [name for name, path in examples.items() if len(path.read_text().splitlines()) > 30]


@pytest.mark.slow
def test_the_published_types_hold_what_the_example_does() -> None:
    """The TypeScript compiler finds no fault with either."""
    checked = subprocess.run([*compiler(), "--project", str(EXAMPLES)], capture_output=True, text=True, timeout=100, check=False)
    assert (0, "") == (checked.returncode, checked.stdout)


@pytest.mark.slow
def test_the_published_types_refuse_a_verb_that_does_not_exist(tmp_path: Path) -> None:
    """So the check above can fail."""
    shutil.copy(EXAMPLES / "types" / "index.d.ts", tmp_path)
    (tmp_path / "wrong.ts").write_text('import type { Request } from "./index.d.ts";\nexport type Wrong = Request<"fly">;\n')
    (tmp_path / "tsconfig.json").write_text('{"compilerOptions": {"noEmit": true, "strict": true, "types": []}}')
    checked = subprocess.run([*compiler(), "--project", str(tmp_path)], capture_output=True, text=True, timeout=100, check=False)
    assert 0 != checked.returncode
    assert "'\"fly\"' does not satisfy the constraint" in checked.stdout


def compiler() -> list[str]:
    """Return the command of the TypeScript compiler."""
    found = MODULES / "typescript" / "bin" / "tsc"
    assert found.exists(), "'tools/setup node' installs it"
    return [shutil.which("node") or "node", str(found)]
