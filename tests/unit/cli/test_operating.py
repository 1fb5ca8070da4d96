"""Laws of what operators use: a configuration that a real broker takes, keys that do their part only, health checks that do not lie."""

from __future__ import annotations

import stat
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import DEVNULL

import anyio
import msgspec
import pytest
from anyio import to_thread

from orchestrator.bus.logs import buckets, logs
from orchestrator.bus.port import Headers, Message
from orchestrator.bus.reach import arrive, bus_at
from orchestrator.cli.entry import CANNOT, DONE, NO, run
from orchestrator.protocol.subject import Subjects
from orchestrator.store.kv import KeyValue
from tests.e2e.shell import free_port

pytestmark = pytest.mark.anyio

S = Subjects()
NATS_SERVER = Path(sysconfig.get_path("scripts")) / "nats-server"


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Path]:
    """Run a nats-server on what `broker-config` wrote, and give the directory of the keys."""
    path = tmp_path / "keys"
    assert DONE == config(path, "--port", str(free_port()), "--store", str(tmp_path / "store"), "--node", "n1")
    async with await anyio.open_process([NATS_SERVER, "-c", path / "broker" / "nats.conf"], stdout=DEVNULL, stderr=DEVNULL) as server:
        async with bus_at(key(path, "admin/admin"), name="test") as admin:
            with anyio.fail_after(10):
                await arrive(admin, wait=True)
            await admin.provision([*logs(S, created=1.0), *buckets(S)])
        yield path
        server.terminate()


def config(path: Path, *options: str) -> int:
    """Write a configuration."""
    return run(["broker-config", str(path), *options])


def key(path: Path, owner: str) -> str:
    """Return the server as its owner names it."""
    return f"file:{path / owner / 'server'}"


async def health(path: Path, owner: str, *arguments: str) -> int:
    """Run a health check with the owner's key, as a process of its own would."""
    return await to_thread.run_sync(run, ["--server", key(path, owner), "health", *arguments, "--timeout", "3"])


def test_keys_stay_when_the_configuration_is_written_again(tmp_path: Path) -> None:
    """A second run adds who is new, changes nobody's key, and nothing is there for others to read."""
    assert DONE == config(tmp_path, "--node", "n1")
    first = (tmp_path / "node/n1/server").read_text()
    assert DONE == config(tmp_path, "--node", "n1", "--node", "n2", "--client", "shop=blue")
    assert first == (tmp_path / "node/n1/server").read_text()
    assert first != (tmp_path / "node/n2/server").read_text().replace("n2", "n1")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert 6 == len(written)
    assert 0 == sum(stat.S_IMODE(path.stat().st_mode) & 0o027 for path in written)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--node", "a", "--client", "a=blue"], "two have the same name"),
        (["--node", "a.b"], "'a.b' is no token"),
        (["--client", "shop"], "'' is no token"),
    ],
)
def test_names_that_would_let_in_the_wrong_one_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    """Nothing is written then."""
    assert CANNOT == config(tmp_path, *options)
    assert sentence in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


async def test_a_worker_is_well_while_it_is_ready_and_holds_its_lease(keys: Path) -> None:
    """Neither a lease alone nor what an earlier worker announced is enough; asked with the worker's own key."""
    assert NO == await health(keys, "node/n1", "worker", "--node", "n1")
    async with bus_at(key(keys, "node/n1"), name="test") as bus:
        await arrive(bus, wait=True)
        leases, nodes = KeyValue(bus, S.bucket("leases")), KeyValue(bus, S.bucket("nodes"))
        await nodes.put("n1", msgspec.json.encode({"epoch": "old"}))
        revision = await leases.put("n1", msgspec.json.encode({"epoch": "new"}))
        assert NO == await health(keys, "node/n1", "worker", "--node", "n1")
        await nodes.put("n1", msgspec.json.encode({"epoch": "new"}))
        assert DONE == await health(keys, "node/n1", "worker", "--node", "n1")
        await leases.remove("n1", revision, marker_s=60)
        assert NO == await health(keys, "node/n1", "worker", "--node", "n1")


async def test_a_coordinator_is_well_while_it_answers_itself(keys: Path) -> None:
    """That another one answers is not enough; asked with a coordinator's own key."""

    async def answer(_: Message) -> tuple[bytes, Headers]:
        return b"", {}

    owner = "coordinator/coordinator"
    assert NO == await health(keys, owner, "coordinator", "--name", "coordinator")
    async with bus_at(key(keys, owner), name="test") as bus:
        await arrive(bus, wait=True)
        async with bus.serve(S.service("api"), S.apis, answer, version="0.1.0", metadata={"coordinator": "coordinator"}):
            assert DONE == await health(keys, owner, "coordinator", "--name", "coordinator")
            assert NO == await health(keys, owner, "coordinator", "--name", "other")


async def test_a_health_check_without_a_broker_or_a_key_is_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says which of the two is missing, and waits for neither."""
    assert CANNOT == await health(tmp_path, "node/n1", "worker", "--node", "n1")
    assert "server" in capsys.readouterr().err
    assert DONE == config(tmp_path, "--node", "n1", "--port", str(free_port()))
    assert CANNOT == await health(tmp_path, "node/n1", "worker", "--node", "n1")
    assert "127.0.0.1" in capsys.readouterr().err
