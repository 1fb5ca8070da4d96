"""`compose/` in real containers, under Podman: images made from the tree, a machine made through them on libvirt, nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests import containers, hypervisors
from tests.containers import BASE, ROOT, Engine
from tests.e2e.places import QEMU
from tests.e2e.shell import free_port
from tests.hypervisors import Libvirtd, held, private_libvirtd

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hypervisor,
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # the first one makes the base system and the images
    pytest.mark.skipif(containers.unavailable() is not None, reason=f"containers: {containers.unavailable()}"),
    pytest.mark.skipif(hypervisors.unavailable() is not None, reason=f"real hypervisors: {hypervisors.unavailable()}"),
]

USER, GROUP = 10001, 10002
"""Whom the worker is for libvirt: the user of the images, with the group of libvirt's socket."""

PARTS = ("broker", "coordinator", "worker")

CLIENT = """
import anyio
from orchestrator.client import Client

async def main():
    async with Client.connect("file:/keys/client/server", reader="client") as vm:
        print(*(f"{one.name} {one.state}" for one in await vm.domains()))

anyio.run(main)
"""


class Machine:
    """One machine with libvirt and the containers of `compose.yaml`."""

    def __init__(self, engine: Engine, daemon: Libvirtd) -> None:
        self.engine = engine
        self.uri = daemon.uri("qemu")
        sockets = Path(self.uri.partition("socket=")[2]).parent
        _let_in(daemon, sockets)
        self._environment = {
            "BASE_IMAGE": BASE,
            "LIBVIRT_DIR": str(sockets),
            "VIRTBUS_MONITOR_PORT": str(free_port()),
            "VIRTBUS_PORT": str(free_port()),
            "WORKER_USER": f"{USER}:{GROUP}",
        }

    def compose(self, *argv: str, input: str = "") -> str:
        """Run podman-compose; return what it wrote."""
        file = str(ROOT / "compose" / "compose.yaml")
        command = [sys.executable, "-m", "podman_compose", "--file", file, "--podman-build-args=--network=host", *argv]
        return self.engine.run(*command, input=input, environment=self._environment)

    def cli(self, *argv: str, input: str = "") -> Any:
        """Run a command of virtbus as the operator; return its answer."""
        return json.loads(self.compose("--profile", "cli", "run", "--rm", "-T", "cli", "--json", *argv, input=input))

    def well(self, part: str) -> bool:
        """Run the health check of a part."""
        try:
            self.engine.podman("healthcheck", "run", f"virtbus_{part}_1")
        except RuntimeError:
            return False
        return True

    async def all_well(self) -> None:
        """Wait until every part is well."""
        with anyio.fail_after(60):
            for part in PARTS:
                while not self.well(part):
                    await anyio.sleep(0.5)

    def kill(self, part: str) -> None:
        """Kill a part's first process with SIGKILL."""
        pid = self.engine.podman("inspect", "--format", "{{.State.Pid}}", f"virtbus_{part}_1").strip()
        self.engine.run("kill", "-9", pid)

    def hosts_view(self) -> dict[str, bool]:
        """Return the domains that libvirt itself has, and whether each runs."""
        with held(self.uri) as connection:
            return {domain.name(): bool(domain.isActive()) for domain in connection.listAllDomains()}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Give a machine with the images, made from this tree, and nothing that runs."""
    with ExitStack() as stack:
        machine = Machine(stack.enter_context(containers.private_podman()), stack.enter_context(private_libvirtd("qemu")))
        machine.engine.load()
        machine.compose("build", "broker", "worker")
        yield machine


@pytest.fixture
async def up(machine: Machine) -> Machine:
    """Give the machine with all parts running and well; they go on for the next test, and end with the last one."""
    machine.compose("up", "--detach")
    await machine.all_well()
    return machine


async def test_a_machine_is_made_through_the_containers_on_the_hosts_libvirt(up: Machine) -> None:
    """Created, seen by libvirt, told as events, changed after each part was killed, and removed."""
    made = up.cli("create-xml", "web1", "--file", "-", input=QEMU.format(name="web1"))
    assert (True, "running") == (made["ok"], made["domain"]["state"])
    assert {"web1": True} == up.hosts_view()
    for part in PARTS:
        up.kill(part)
    await up.all_well()
    assert {"web1": True} == up.hosts_view()
    assert "paused" == up.cli("suspend", "web1")["domain"]["state"]
    assert {"defined", "started", "suspended"} <= set(_lifecycle(up))
    up.cli("destroy", "web1")
    up.cli("undefine", "web1")
    assert {} == up.hosts_view()


async def test_each_part_has_no_more_than_it_needs(up: Machine) -> None:
    """No part is root, may gain rights, writes outside its volumes, or has another's key."""
    keys = {}
    for part in PARTS:
        shown = json.loads(up.engine.podman("inspect", f"virtbus_{part}_1"))[0]
        host = shown["HostConfig"]
        assert (True, False) == (host["ReadonlyRootfs"], host["Privileged"])
        assert not shown["EffectiveCaps"]
        assert "no-new-privileges" in host["SecurityOpt"]
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0
        assert str(USER) == _inside(up, part, "id", "-u")
        keys[part] = _inside(up, part, "find", "/keys", "-name", "server").split()
    assert {"coordinator": ["/keys/coordinator/server"], "worker": ["/keys/n1/server"]} == {part: keys[part] for part in PARTS[1:]}


async def test_without_extras_nothing_is_compiled_and_the_client_works(up: Machine) -> None:
    """A bare system with Python and no compiler: `pip install .`, then the client and `virtbus events`."""
    up.cli("create-xml", "web2", "--file", "-", input=QEMU.format(name="web2"))
    script = f"""
        for tool in cc gcc c99 clang; do if command -v $tool; then exit 3; fi; done
        python3 -m venv /venv; cd /src; /venv/bin/pip install --quiet . 2>&1
        cd /; if /venv/bin/python -c 'import libvirt' 2>/dev/null; then exit 4; fi
        /venv/bin/python -c '{CLIENT}'
        /venv/bin/virtbus --server file:/keys/client/server --json events --no-follow --reader client --project default --domain web2
    """
    source, keys = f"{ROOT}:/src:ro", "virtbus_client-keys:/keys:ro"
    told = up.engine.podman("run", "--rm", "--network=host", "--volume", source, "--volume", keys, BASE, "sh", "-euc", script)
    lines = told.splitlines()
    assert "web2 running" in lines
    assert "virt.v1.lifecycle.started" in [json.loads(line)["type"] for line in lines if line.startswith("{")]
    up.cli("destroy", "web2")
    up.cli("undefine", "web2")


async def test_down_leaves_nothing(up: Machine) -> None:
    """After `down --volumes` podman has no container, pod, volume or network of ours, and no process runs."""
    up.compose("down", "--volumes")
    left = up.engine.left()
    assert ([], [], []) == (left["containers"], left["pods"], left["volumes"])
    assert ["podman"] == left["networks"]
    assert set() == set(left["processes"]) & {"conmon", "nats-server", "virtbus", "python", "python3"}


def _lifecycle(machine: Machine) -> list[str]:
    """Return what a client of the project is told of its domains' lives, as a feed from the past has it."""
    reading = ("events", "--no-follow", "--reader", "client", "--project", "default", "--kind", "lifecycle")
    told = _inside(machine, "broker", "virtbus", "--server", "file:/keys/client/client/server", "--json", *reading)
    return [json.loads(event)["data"]["event"] for event in told.splitlines()]


def _inside(machine: Machine, part: str, *argv: str) -> str:
    return machine.engine.podman("exec", f"virtbus_{part}_1", *argv).strip()


def _let_in(daemon: Libvirtd, sockets: Path) -> None:
    """Let a group use the daemon's socket, and have the daemon know the user of the images: it refuses users that have no name."""
    sockets.chmod(0o711)
    os.chown(sockets / "libvirt-sock", 0, GROUP)
    (sockets / "libvirt-sock").chmod(0o770)
    for name, entry in (("passwd", f"virtbus:x:{USER}:{GROUP}::/:/usr/sbin/nologin"), ("group", f"virtbus:x:{GROUP}:")):
        file = sockets / f"known-{name}"
        file.write_text(f"{_beside(daemon, 'cat', f'/etc/{name}')}{entry}\n")
        _beside(daemon, "mount", "--bind", str(file), f"/etc/{name}")


def _beside(daemon: Libvirtd, *argv: str) -> str:
    """Run a command where the daemon runs."""
    return subprocess.run(daemon._sandbox.command(*argv), check=True, capture_output=True, text=True).stdout
