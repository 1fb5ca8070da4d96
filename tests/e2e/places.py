"""The real hypervisors that end-to-end tests run on: each with its URI, the XML that it takes, and how an outsider asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.cli.orphans import adopt
from tests.e2e.fleet import PROJECT_ROOT
from tests.hypervisors import private_libvirtd

QEMU = """<domain type="qemu"><name>{name}</name><memory unit="MiB">32</memory>
<os><type arch="x86_64" machine="pc">hvm</type></os><devices/></domain>"""
LXC = """<domain type="lxc"><name>{name}</name><memory unit="MiB">64</memory><os><type>exe</type><init>/init</init></os>
<devices><filesystem type="mount"><source dir="{root}"/><target dir="/"/></filesystem><console type="pty"/></devices></domain>"""
TEST = '<domain type="test"><name>{name}</name><memory>8192</memory><os><type>hvm</type></os></domain>'


class Place:
    """The hypervisors of each node. uris: by node. xmls: by domain type, a domain with room for its `{name}`; the first is used mostly."""

    def __init__(self, uris: Mapping[str, Sequence[str]], xmls: Mapping[str, str], root: str = "") -> None:
        """root: the file system of containers, where there are some."""
        self.uris = uris
        self.root = root
        self.xmls = xmls
        self.kind, self.xml = next(iter(xmls.items()))

    def ask(self, node: str, what: str) -> dict[str, str]:
        """`list` or `destroy` the domains of a node; return their states before, by name. An embedded one must be free."""
        found: dict[str, str] = {}
        for uri in self.uris[node]:
            command = [sys.executable, "-m", "tests.e2e.listing", uri, what]
            environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
            listed = subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60)
            found |= json.loads(listed.stdout)
        return found


@contextmanager
def embedded(nodes: Sequence[str]) -> Iterator[Place]:
    """Make room for QEMU with its driver inside the worker's process, and end its guests."""
    with left_running(nodes) as place:
        yield place
        for node in nodes:
            place.ask(node, "destroy")


@contextmanager
def left_running(nodes: Sequence[str]) -> Iterator[Place]:
    """Make room for QEMU with its driver inside the worker's process; guests end with the namespace that somebody has made."""
    adopt()  # as `virtbus up` does
    with ExitStack() as stack:
        roots = {node: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vb"))) for node in nodes}
        for root in roots.values():
            root.chmod(0o711)  # QEMU runs as a user of its own
            (root / "etc").mkdir()
            (root / "etc" / "qemu.conf").write_text('stdio_handler = "file"\n')  # no virtlogd here
        yield Place({node: [f"qemu:///embed?root={root}"] for node, root in roots.items()}, {"qemu": QEMU})


@contextmanager
def libvirtd_qemu(nodes: Sequence[str]) -> Iterator[Place]:
    """Run QEMU through a libvirtd for each node."""
    with ExitStack() as stack:
        daemons = {node: stack.enter_context(private_libvirtd("qemu")) for node in nodes}
        yield Place({node: [daemon.uri("qemu")] for node, daemon in daemons.items()}, {"qemu": QEMU})


@contextmanager
def remote_qemu(nodes: Sequence[str]) -> Iterator[Place]:
    """Run QEMU behind a libvirtd that each node's worker reaches over TCP, as one on another host."""
    with ExitStack() as stack:
        daemons = {node: stack.enter_context(private_libvirtd("qemu", listening=True)) for node in nodes}
        yield Place({node: [daemon.remote_uri("qemu")] for node, daemon in daemons.items()}, {"qemu": QEMU})


@contextmanager
def libvirtd_lxc(nodes: Sequence[str]) -> Iterator[Place]:
    """Run containers through a libvirtd for each node, on the file system that the first one has made."""
    with ExitStack() as stack:
        daemons = {node: stack.enter_context(private_libvirtd("lxc")) for node in nodes}
        root = str(next(iter(daemons.values())).root)
        yield Place({node: [daemon.uri("lxc")] for node, daemon in daemons.items()}, {"lxc": LXC.replace("{root}", root)}, root)


@contextmanager
def several(nodes: Sequence[str]) -> Iterator[Place]:
    """Give each node machines and containers, through one libvirtd, and a test driver inside its worker."""
    with ExitStack() as stack:
        daemons = {node: stack.enter_context(private_libvirtd("qemu", "lxc")) for node in nodes}
        tests = stack.enter_context(in_process_test(nodes))
        root = str(next(iter(daemons.values())).root)
        uris = {node: [daemon.uri("qemu"), daemon.uri("lxc"), *tests.uris[node]] for node, daemon in daemons.items()}
        yield Place(uris, {"qemu": QEMU, "lxc": LXC.replace("{root}", root), "test": TEST}, root)


@contextmanager
def libvirtd_test(nodes: Sequence[str]) -> Iterator[Place]:
    """Run the test driver behind a libvirtd for each node, held open so that it outlives a worker."""
    with ExitStack() as stack:
        daemons = {node: stack.enter_context(private_libvirtd()) for node in nodes}
        for daemon in daemons.values():
            stack.enter_context(daemon.held("test"))
        yield Place({node: [daemon.uri("test")] for node, daemon in daemons.items()}, {"test": TEST})


@contextmanager
def in_process_test(nodes: Sequence[str]) -> Iterator[Place]:
    """Describe a test driver inside each worker's process: domains end with it."""
    with tempfile.TemporaryDirectory(prefix="vb") as name:
        uris = {}
        for node in nodes:
            description = Path(name) / f"{node}.xml"
            description.write_text("<node/>")
            uris[node] = [f"test://{description}"]
        yield Place(uris, {"test": TEST})


PLACES = {
    "test": in_process_test,
    "embed": embedded,
    "libvirtd-qemu": libvirtd_qemu,
    "remote-qemu": remote_qemu,
    "libvirtd-lxc": libvirtd_lxc,
    "libvirtd-test": libvirtd_test,
    "several": several,
}
