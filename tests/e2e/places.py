"""The real hypervisors that end-to-end tests run on: each with its URI, the XML that it takes, and how an outsider asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.cli.orphans import adopt
from tests.e2e.fleet import PROJECT_ROOT
from tests.hypervisors import private_libvirtd

QEMU = """<domain type="qemu"><name>{name}</name><memory unit="MiB">32</memory>
<os><type arch="x86_64" machine="pc">hvm</type></os><devices/></domain>"""
TEST = '<domain type="test"><name>{name}</name><memory>8192</memory><os><type>hvm</type></os></domain>'


class Place:
    """Hypervisors of one kind, one for each node. kind: the domain type."""

    def __init__(self, kind: str, uris: dict[str, str], xml: str) -> None:
        self.kind = kind
        self.uris = uris
        self.xml = xml

    def ask(self, node: str, what: str) -> dict[str, str]:
        """`list` or `destroy` the domains of a node; return their states before, by name. An embedded one must be free."""
        command = [sys.executable, "-m", "tests.e2e.listing", self.uris[node], what]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
        listed = subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60)
        found: dict[str, str] = json.loads(listed.stdout)
        return found


@contextmanager
def embedded(nodes: Sequence[str]) -> Iterator[Place]:
    """Make room for QEMU with its driver inside the worker's process."""
    adopt()  # as `virtbus up` does
    with ExitStack() as stack:
        roots = {node: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vb"))) for node in nodes}
        for root in roots.values():
            root.chmod(0o711)  # QEMU runs as a user of its own
            (root / "etc").mkdir()
            (root / "etc" / "qemu.conf").write_text('stdio_handler = "file"\n')  # no virtlogd here
        place = Place("qemu", {node: f"qemu:///embed?root={root}" for node, root in roots.items()}, QEMU)
        yield place
        for node in roots:
            place.ask(node, "destroy")


@contextmanager
def libvirtd_qemu(nodes: Sequence[str]) -> Iterator[Place]:
    """Run QEMU through a libvirtd for each node."""
    with ExitStack() as stack:
        daemons = {node: stack.enter_context(private_libvirtd("qemu")) for node in nodes}
        yield Place("qemu", {node: daemon.uri("qemu") for node, daemon in daemons.items()}, QEMU)


@contextmanager
def libvirtd_test(nodes: Sequence[str]) -> Iterator[Place]:
    """Run the test driver behind a libvirtd for each node, held open so that it outlives a worker."""
    with ExitStack() as stack:
        daemons = {node: stack.enter_context(private_libvirtd()) for node in nodes}
        for daemon in daemons.values():
            stack.enter_context(daemon.held("test"))
        yield Place("test", {node: daemon.uri("test") for node, daemon in daemons.items()}, TEST)


@contextmanager
def in_process_test(nodes: Sequence[str]) -> Iterator[Place]:
    """Describe a test driver inside each worker's process: domains end with it."""
    with tempfile.TemporaryDirectory(prefix="vb") as name:
        uris = {}
        for node in nodes:
            description = Path(name) / f"{node}.xml"
            description.write_text("<node/>")
            uris[node] = f"test://{description}"
        yield Place("test", uris, TEST)


PLACES = {"test": in_process_test, "embed": embedded, "libvirtd-qemu": libvirtd_qemu, "libvirtd-test": libvirtd_test}
