"""The doctor, before real brokers that lack this and that: each lack is a line that says what to do, and nothing is changed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator import service
from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.logs import logs
from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Message, Outgoing
from orchestrator.cli.checkup import Checkup, Finding
from orchestrator.cli.entry import run
from orchestrator.protocol import codec, permission
from orchestrator.protocol.command import answer
from orchestrator.protocol.subject import Subjects
from tests.unit.cli.test_commands import LEASE, NODE

pytestmark = pytest.mark.anyio
SUBJECTS = Subjects()


class World:
    """A broker, and a coordinator that answers questions with nodes and no domains. heard: what reached it."""

    def __init__(self, broker: Embedded, bus: NatsBus) -> None:
        self.broker = broker
        self.bus = bus
        self.heard: list[str] = []
        self.nodes: list[dict[str, Any]] = []
        self._stack = AsyncExitStack()

    async def coordinator(self) -> None:
        """Have one answer until the world ends."""
        metadata = {"coordinator": "c1"}
        await self._stack.enter_async_context(self.bus.serve("virt-api", SUBJECTS.apis, self._answer, version="0", metadata=metadata))

    async def worker(self, node: str) -> None:
        """Have a worker of a node be found until the world ends."""
        metadata = {"node": node, "epoch": "01JD"}
        serving = self.bus.serve("virt-worker", SUBJECTS.asks(node), self._answer, version="0", metadata=metadata)
        await self._stack.enter_async_context(serving)

    async def lease(self, node: str, *, clock_s: float = 0.0) -> None:
        """Give a node a lease, written by a clock that is ahead."""
        written = datetime.fromtimestamp(time.time() + clock_s, UTC).isoformat()
        await self.bus.append(Outgoing(f"$KV.virt_leases.{node}", codec.encode(LEASE | {"node": node, "updated": written})))

    async def findings(self, user: str = "root", reader: str = "") -> list[Finding]:
        """Return what the doctor finds, as a user."""
        async with NatsBus(_as(user, self.broker), name="doctor", inbox_prefix=permission.inbox(user)) as bus:
            await bus.link.up()
            return [finding async for finding in Checkup(bus, SUBJECTS, "default", reader).findings("here")]

    async def close(self) -> None:
        """End what answers."""
        await self._stack.aclose()

    async def _answer(self, message: Message) -> tuple[bytes, dict[str, str]]:
        self.heard.append(message.subject)
        return answer({"nodes": self.nodes, "domains": []}), {}


def _as(user: str, broker: Embedded) -> str:
    """Return the broker's URL for a user, whose password is called like it."""
    return broker.url.replace("://", f"://{user}:{user}@")


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    """Run a broker with a user who may do everything, and a client of one project who may send two verbs."""
    client = permission.client(SUBJECTS, "alice", "default", verbs=["start", "domains", "get"])
    users = [User(name="root", password="root"), User(name="alice", password="alice", permissions=client)]  # noqa: S106
    async with Embedded(tmp_path / "broker", users=users) as broker, NatsBus(_as("root", broker), name="test") as bus:
        await bus.link.up()
        made = World(broker, bus)
        yield made
        await made.close()


def said(findings: Sequence[Finding], verdict: str) -> dict[str, str]:
    """Return what was found to be so, by its subject."""
    return {finding.subject: finding.said for finding in findings if finding.verdict == verdict}


async def test_a_fleet_that_is_well_is_found_well(world: World) -> None:
    """Every line is ok."""
    await service.make(world.bus, SUBJECTS)
    await world.coordinator()
    await world.worker("n1")
    await world.lease("n1")
    world.nodes = [NODE]
    findings = await world.findings()
    assert {finding.verdict for finding in findings} == {"ok"}
    subjects = [finding.subject for finding in findings]
    assert subjects == [
        "broker", "logs", "clock", "rights", "rights", "coordinator", "worker n1", "hypervisor test:///default of n1",
    ]
    assert said(findings, "ok")["coordinator"] == "c1 answers"


async def test_a_bare_broker_lacks_logs_and_a_coordinator(world: World) -> None:
    """Each lack with its remedy; what hangs on it is not looked for."""
    findings = await world.findings()
    failed = said(findings, "fail")
    assert failed["log VIRT_CMD"] == "is missing"
    assert failed["coordinator"].startswith("no coordinator answers")
    assert all(finding.remedy for finding in findings if finding.verdict != "ok")


async def test_a_log_that_is_not_as_provisioned_is_told_with_both_values(world: World) -> None:
    """And one that is nearly full."""
    await service.make(world.bus, SUBJECTS)
    odd = logs(SUBJECTS, created=0.0, cmd_bytes=1000)[0]
    await world.bus.provision([odd])
    await world.bus.append(Outgoing(SUBJECTS.cmd("default", "web1", "start"), b"x" * 850))
    warned = [finding.said for finding in await world.findings() if finding.subject == "log VIRT_CMD"]
    assert len(warned) == 2
    assert "max_bytes is 1000, not 67108864" in warned[0]
    assert warned[1].endswith("% full")


async def test_a_node_in_trouble_is_told_apart(world: World) -> None:
    """Offline, silent, with a lost hypervisor, with a wrong clock: four troubles, four lines."""
    await service.make(world.bus, SUBJECTS)
    await world.coordinator()
    lost = json.loads(json.dumps(NODE | {"node": "lost"}))
    lost["hypervisors"][0]["connected"] = False
    world.nodes = [*(NODE | {"node": name} for name in ("silent", "late", "off")), lost]
    for name in ("late", "lost"):
        await world.worker(name)
    for name in ("silent", "lost"):
        await world.lease(name)
    await world.lease("late", clock_s=60.0)
    findings = await world.findings()
    assert said(findings, "fail") == {
        "worker silent": "holds its lease, but does not answer",
        "worker off": "is offline; it was last heard of at 2026-01-01T00:00:00Z",
        "hypervisor test:///default of lost": "is not connected",
    }
    assert said(findings, "warn")["worker late"].startswith("its clock is 6")


async def test_what_a_user_may_do_is_tried_and_nothing_comes_of_it(world: World) -> None:
    """No command reaches a coordinator, no log grows; what is not allowed is told, and is no failure."""
    await service.make(world.bus, SUBJECTS)
    await world.coordinator()
    rights = [finding for finding in await world.findings("alice", reader="alice") if finding.subject == "rights"]
    assert [finding.said for finding in rights] == [
        "project default: commands start; left in the log start", "project default: its events, live and replayed",
    ]
    assert {subject.rpartition(".")[2] for subject in world.heard} == {"domains"}
    assert await world.bus.last(SUBJECTS.log_cmd, SUBJECTS.cmds) is None


async def test_a_reader_of_another_name_may_not_replay(world: World) -> None:
    """The broker holds a client's readers to one name."""
    await service.make(world.bus, SUBJECTS)
    await world.coordinator()
    warned = said(await world.findings("alice"), "warn")
    assert warned["rights"] == "project default: its events: live only"


async def test_a_command_that_the_broker_refuses_fails_at_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The broker never answers what it refuses; its complaint does, and nobody waits for the answer's time-out."""
    with anyio.fail_after(5):
        code = await anyio.to_thread.run_sync(run, ["--server", _as("alice", world.broker), "nodes", "--quiet"])
    assert code == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith('the broker does not allow it to this user (permissions violation for publish to "virt.v1.api._._.nodes")')


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a broker that is away be given up at once."""
    monkeypatch.setattr("orchestrator.bus.reach.CONNECT_S", 0.1)


@pytest.mark.usefixtures("soon")
def test_a_broker_that_is_away_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """With what to do; as JSON it is a list of findings."""
    assert run(["--server", "nats://127.0.0.1:1", "doctor"]) == 1
    output = capsys.readouterr().out
    assert "FAIL  broker: no broker answers at nats://127.0.0.1:1" in output
    assert "'virtbus up'" in output
    assert run(["--server", "nats://127.0.0.1:1", "doctor", "-o", "json"]) == 1
    assert [finding["verdict"] for finding in json.loads(capsys.readouterr().out)] == ["ok", "fail"]


def test_a_config_file_that_cannot_be_read_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The doctor says more than that the command line is wrong."""
    (tmp_path / "config.toml").write_text("nonsense")
    assert run(["doctor"]) == 1
    assert capsys.readouterr().out.startswith(f"FAIL  settings: {tmp_path}/config.toml is no TOML")


@pytest.mark.usefixtures("soon")
def test_hypervisors_of_this_host_are_asked_by_the_other_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A process of its own answers; one that dies or hangs is a finding about the hypervisor that it was asked for."""
    arguments = ["--server", "nats://127.0.0.1:1", "doctor", "-o", "json", "--hypervisor", "test:///default", "--hypervisor", "x://"]
    assert run(arguments) == 1
    found = {finding["subject"]: finding["verdict"] for finding in json.loads(capsys.readouterr().out)}
    assert (found["hypervisor test:///default"], found["hypervisor x://"]) == ("ok", "fail")
    monkeypatch.setattr("orchestrator.cli.doctor.HYPERVISORS_S", 0.01)
    assert run(arguments) == 1
    last = json.loads(capsys.readouterr().out)[-1]
    assert (last["subject"], last["said"]) == ("hypervisor test:///default", "it does not answer within 0.01 s")
