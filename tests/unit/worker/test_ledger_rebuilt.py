"""Laws of a journal that is lost, or restored from an older copy: what the logs tell is not done again, the rest is looked at."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.bus.port import Outgoing, Refused
from orchestrator.protocol import codec, token
from orchestrator.protocol.event import event
from orchestrator.protocol.verb import NoArgs
from orchestrator.store.kv import KeyValue
from tests.e2e import audit
from tests.unit.worker.world import NODE, SUBJECTS, WEB1, WEB2, XML, World, ends, kinds, world
from workers.drivers.memory import MemoryDriver
from workers.drivers.port import Tag
from workers.engine import gate
from workers.engine.lease import Taken
from workers.engine.order import read_order
from workers.journal.memory import Contents, MemoryDisk, MemoryJournal
from workers.journal.port import Change, Damaged, JournalError
from workers.worker import Worker

pytestmark = pytest.mark.anyio
TAG = Tag(project="default")
WEB3 = "6f1c0000-0000-4000-8000-000000000003"


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node whose worker does not run yet."""
    async with world() as made:
        yield made


async def lease_ended(node: World) -> None:
    """Let the lease have run out, as it does 15 s after its holder died."""
    await KeyValue(node.client, SUBJECTS.bucket("leases")).remove(NODE)


async def lose_journal(node: World, restored: Contents | None = None) -> None:
    """Have a new journal, or one restored from a copy; the lease of the worker that died has run out."""
    node.disk = MemoryDisk()
    if restored is not None:
        node.disk.contents = restored
    await lease_ended(node)


async def trim(node: World) -> None:
    """Remove all that lies in the node's log of orders."""
    await node.client.purge(SUBJECTS.log_run, SUBJECTS.runs(NODE), 2**52)


def outcome(told: dict[str, Any]) -> tuple[bool, str | None]:
    """Return whether a command succeeded, and what is known of its effect if it did not."""
    return told["ok"], told.get("error", {}).get("outcome")


# -- what has ended


@pytest.mark.parametrize("trimmed", [False, True])
async def test_with_a_lost_journal_nothing_that_ended_is_run_again(node: World, trimmed: bool) -> None:
    """Whether or not its order still lies in the log; and a repeat has the first outcome."""
    async with node.worker():
        await node.create()
        first = await node.do("suspend", id="a")
        await node.do("resume", id="b")
    if trimmed:
        await trim(node)
    await lose_journal(node)
    calls = list(node.driver.calls)
    async with node.worker(), node.results() as result:
        await node.send("suspend", body={"id": "a"})
        assert json.loads((await result("a")).body) == first
        assert (await node.do("suspend", id="c"))["changed"]
        events = await node.events()
    assert node.driver.calls == [*calls, ("suspend", WEB1)]
    assert [len(ends(events, identity)) for identity in ("a", "b", "c")] == [1, 1, 1]
    audit.check_sequences(events, NODE)


async def test_with_an_older_copy_of_the_journal_nothing_that_ended_is_run_again(node: World) -> None:
    """Also what the copy has as waiting, begun, or on its way into the log."""
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend")
        await node.send("suspend", body={"id": "begun"})
        await node.send("resume", body={"id": "waiting"})
        await anyio.to_thread.run_sync(fault.entered.wait)
        copy = node.disk.contents.copy()
        fault.release()
        await node.ended("waiting")
        await node.do("suspend", id="later")
    await lose_journal(node, copy)
    calls = list(node.driver.calls)
    async with node.worker():
        assert (await node.do("resume", id="new"))["changed"]
        events = await node.events()
    assert node.driver.calls == [*calls, ("resume", WEB1)]
    assert [len(ends(events, identity)) for identity in ("begun", "waiting", "later", "new")] == [1, 1, 1, 1]
    audit.check_sequences(events, NODE)


async def test_an_id_used_for_something_else_is_a_conflict_also_with_a_lost_journal(node: World) -> None:
    """The event says which command it ended; and the conflict of before gets no second end."""
    async with node.worker():
        await node.create()
        await node.do("suspend", id="a")
        before = await node.send("resume", body={"id": "a"})
        await node.ended(f"m-run-{before}")
    await lose_journal(node)
    async with node.worker():
        sequence = await node.send("destroy", body={"id": "a"})
        assert (await node.ended(f"m-run-{sequence}"))["error"]["code"] == "conflict"
        events = await node.events()
    assert [len(ends(events, identity)) for identity in ("a", f"m-run-{before}")] == [1, 1]
    assert ("destroy", WEB1) not in node.driver.calls


async def test_a_malformed_command_is_not_ended_twice(node: World) -> None:
    """It has an event like any other."""
    async with node.worker():
        sequence = await node.send("start", body=b"{")
        await node.ended(f"m-run-{sequence}")
    await lose_journal(node)
    async with node.worker():
        await node.create()
        assert len(ends(await node.events(), f"m-run-{sequence}")) == 1


async def test_a_fence_survives_the_journal(node: World) -> None:
    """The terminal event bears it."""
    async with node.worker():
        await node.create()
        await node.send("suspend", body={"id": "new"}, Virt_Fence="7")
        await node.ended("new")
    await trim(node)
    await lose_journal(node)
    async with node.worker():
        await node.send("resume", body={"id": "old"}, Virt_Fence="6")
        assert (await node.ended("old"))["error"]["code"] == "conflict"


async def test_a_query_tells_what_was_rebuilt(node: World) -> None:
    """With subject and place, as of any command."""
    async with node.worker():
        await node.create()
        sequence = await node.send("suspend", body={"id": "a"})
        await node.ended("a")
    await lose_journal(node)
    async with node.worker():
        answer = await node.client.request(SUBJECTS.ask(NODE, "default", "_", "command"), b'{"args":{"id":"a"}}', timeout_s=5)
        recorded = json.loads(answer.body)["result"]["command"]
        assert (recorded["phase"], recorded["sequence"], recorded["result"]["ok"]) == ("stored", sequence, True)
        assert recorded["subject"] == SUBJECTS.run(NODE, "default", WEB1, "suspend")


async def test_domains_and_their_projects_come_from_the_state_keys(node: World) -> None:
    """A hypervisor that keeps no metadata has nobody else to ask; and what went meanwhile is told."""
    node.driver = MemoryDriver(keeps=False)
    async with node.worker():
        body = {"id": "c", "args": {"xml": XML.format(name="web1")}}
        await node.send("create-xml", project="shop", body=body)
        await node.ended("c")
        await node.create(WEB2, "web2")
        with anyio.fail_after(5):
            while await node.state(project="shop") is None or await node.state(WEB2) is None:
                await anyio.sleep(0.01)
    node.driver.machine.destroy(WEB2, NoArgs(), TAG)
    node.driver.machine.undefine(WEB2, NoArgs(), TAG)
    await lose_journal(node)
    async with node.worker():
        await node.send("suspend", project="shop", body={"id": "s"})
        assert (await node.ended("s"))["changed"]
        assert kinds(await node.events(), WEB2)[-1] == "lifecycle.undefined"
        with anyio.fail_after(5):
            while await node.state(WEB2) is not None:
                await anyio.sleep(0.01)


def put_aside(folder: Path) -> int:
    """Return how many damaged journals lie in a folder."""
    return len(list(folder.glob("journal.db.damaged-*")))


async def test_a_damaged_journal_is_refused_by_name_and_rebuilt_on_request(node: World, tmp_path: Path) -> None:
    """The damaged file is kept, and nothing that ended is run again."""

    @asynccontextmanager
    async def started(**options: Any) -> AsyncIterator[None]:
        worker = Worker(node.bus, node=NODE, hypervisors=[node.driver], data_dir=tmp_path, **options)
        async with worker, anyio.create_task_group() as tasks:
            await tasks.start(worker.run)
            yield
            tasks.cancel_scope.cancel()

    async with started():
        await node.create()
        first = await node.do("suspend", id="a")
        await node.do("resume", id="b")
    await lease_ended(node)
    (tmp_path / "journal.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(Damaged, match=r"journal\.db is damaged .* --rebuild"):
        async with started():
            pass
    async with started(rebuild=True), node.results() as result:
        await node.send("suspend", body={"id": "a"})
        assert json.loads((await result("a")).body) == first
    assert node.driver.calls.count(("suspend", WEB1)) == 1
    assert put_aside(tmp_path) == 1


# -- what has no end


@pytest.mark.parametrize(("after", "expected"), [(False, (False, "none")), (True, (True, None))])
async def test_what_may_have_begun_is_settled_by_looking(node: World, after: bool, expected: tuple[bool, str | None]) -> None:
    """Its end lay nowhere but in the journal that was lost; it is not called again."""
    async with node.worker():
        await node.create()
        fault = node.driver.faults.hang("suspend", after=after)
        await node.send("suspend", body={"id": "a"})
        await anyio.to_thread.run_sync(fault.entered.wait)
    await lose_journal(node)
    calls = list(node.driver.calls)
    async with node.worker():
        assert outcome(await node.ended("a")) == expected
    assert node.driver.calls == calls
    fault.release()


async def test_where_looking_cannot_tell_the_outcome_is_unknown(node: World) -> None:
    """A reboot leaves no trace."""
    async with node.worker():
        await node.create()
    await node.send("reboot", body={"id": "a"})
    await lose_journal(node)
    async with node.worker():
        assert outcome(await node.ended("a")) == (False, "unknown")
    assert ("reboot", WEB1) not in node.driver.calls


async def test_a_creation_in_doubt_is_told_from_what_is_there(node: World) -> None:
    """Made, or not."""
    async with node.worker():
        await node.create(WEB2, "web2")
        fault = node.driver.faults.hang("start", after=True)
        await node.send("create-xml", body={"id": "made", "args": {"xml": XML.format(name="web1")}})
        await anyio.to_thread.run_sync(fault.entered.wait)
    await node.send("create-xml", WEB3, body={"id": "unmade", "args": {"xml": XML.format(name="web3")}})
    await lose_journal(node)
    calls = list(node.driver.calls)
    async with node.worker():
        assert outcome(await node.ended("made")) == (True, None)
        assert outcome(await node.ended("unmade")) == (False, "none")
    assert node.driver.calls == calls
    fault.release()


async def test_of_several_in_doubt_only_a_goal_that_holds_is_told(node: World) -> None:
    """A later one may have undone what an earlier one did, and nobody knows how many began."""
    async with node.worker():
        await node.create()
        await node.create(WEB2, "web2")
    for identity, verb in (("a", "destroy"), ("b", "start"), ("c", "suspend")):
        await node.send(verb, body={"id": identity})
    await node.send("suspend", WEB2, body={"id": "alone"})
    await lose_journal(node)
    async with node.worker():
        assert outcome(await node.ended("a")) == (False, "unknown")
        assert outcome(await node.ended("b")) == (True, None)
        assert outcome(await node.ended("c")) == (False, "unknown")
        assert outcome(await node.ended("alone")) == (False, "none")
        assert (await node.do("suspend", id="d"))["changed"], "the domain's queue goes on"
    assert node.driver.calls == [("create-xml", WEB1), ("create-xml", WEB2), ("suspend", WEB1)]


async def tell_success(node: World, verb: str, identity: str) -> None:
    """Send an order of which the log of events says that it succeeded."""
    sequence = await node.send(verb, body={"id": identity})
    stored = await node.client.last(SUBJECTS.log_run, SUBJECTS.runs(NODE))
    assert stored is not None
    last = (await node.events())[-1]
    told = event(
        prefix="virt",
        name="command.succeeded",
        source=last["source"],
        node=NODE,
        project="default",
        subject=WEB1,
        time=last["time"],
        epoch=last["epoch"],
        sequence=int(last["sequence"]) + 1,
        previous=int(last["sequence"]),
        data={"id": identity, "verb": verb, "ok": True, "changed": True, "node": NODE, "project": "default", "duration_ms": 1.0},
        commandid=identity,
        commandsequence=sequence,
        commanddigest=read_order(stored, SUBJECTS).entry.digest,
    )
    subject = SUBJECTS.evt(NODE, "default", WEB1, "command.succeeded")
    await node.client.append(Outgoing(subject, codec.encode(told), {"Nats-Msg-Id": told.id}))


async def test_what_was_overtaken_never_began(node: World) -> None:
    """For one domain the order of the log is the order of effects: that a later command had its turn proves it."""
    async with node.worker():
        await node.create()
    await node.send("suspend", body={"id": "missed"})
    await tell_success(node, "resume", "later")
    await lose_journal(node)
    async with node.worker():
        told = await node.ended("missed")
        assert (told["error"]["code"], told["error"]["outcome"], told["error"]["retryable"]) == ("conflict", "none", True)
        assert len(ends(await node.events(), "later")) == 1
    assert node.driver.calls == [("create-xml", WEB1)]


async def test_what_came_after_the_loss_is_run_behind_what_is_in_doubt(node: World) -> None:
    """In the order of the log."""
    async with node.worker():
        await node.create()
    await node.send("suspend", body={"id": "doubtful"})
    await lose_journal(node)
    async with node.worker():
        await node.do("suspend", id="new")
        told = [event["data"]["id"] for event in await node.events() if event["data"].get("id") in ("doubtful", "new")]
    assert told == ["doubtful", "new"]
    assert node.driver.calls == [("create-xml", WEB1), ("suspend", WEB1)]


async def test_too_many_in_doubt_end_as_unknown_and_none_is_run(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node looks into is bounded."""
    monkeypatch.setattr(gate, "MAX_OPEN", 3)
    async with node.worker():
        await node.create()
    for number in range(6):
        await node.send("suspend", body={"id": f"s{number}"})
    await lose_journal(node)
    async with node.worker():
        found = [outcome(await node.ended(f"s{number}")) for number in range(6)]
    assert found == [(False, "unknown")] * 6
    assert node.driver.calls == [("create-xml", WEB1)]


async def test_what_waits_for_a_new_node_is_run(node: World) -> None:
    """No worker of this name has ever been: nothing can have begun."""
    await node.send("create-xml", body={"id": "a", "args": {"xml": XML.format(name="web1")}})
    async with node.worker():
        assert outcome(await node.ended("a")) == (True, None)


async def test_a_node_whose_events_are_gone_is_known_by_its_record(node: World) -> None:
    """It stays for as long as the node."""
    async with node.worker():
        await node.create()
    await node.send("suspend", body={"id": "a"})
    await node.client.purge(SUBJECTS.log_evt, SUBJECTS.events, 2**52)
    await trim_before(node, "a")
    await lose_journal(node)
    async with node.worker():
        assert outcome(await node.ended("a")) == (False, "none")
    assert node.driver.calls == [("create-xml", WEB1)]


async def trim_before(node: World, identity: str) -> None:
    """Remove the orders before the one with this id."""
    last = await node.client.last(SUBJECTS.log_run, SUBJECTS.runs(NODE))
    assert last is not None
    assert json.loads(last.body)["id"] == identity
    await node.client.purge(SUBJECTS.log_run, SUBJECTS.runs(NODE), last.sequence - 1)


# -- crashes, epochs, leases


class Mortal(MemoryJournal):
    """A journal whose worker dies at its commit number `at`."""

    def __init__(self, disk: MemoryDisk, at: int) -> None:
        super().__init__(disk)
        self.left = at

    async def commit(self, *changes: Change) -> None:
        """Die, or write."""
        self.left -= 1
        if self.left <= 0:
            self.disk.crash()
            raise JournalError("killed")
        await super().commit(*changes)


async def run_for_ever(worker: Worker) -> None:
    """Run a worker until it fails."""
    async with worker, anyio.create_task_group() as tasks:
        await tasks.start(worker.run)


async def test_a_rebuilding_that_is_cut_off_begins_again(node: World) -> None:
    """Killed at each of its commits: still nothing is run that ended or is in doubt."""
    async with node.worker():
        await node.create()
        await node.do("suspend", id="a")
    await node.send("resume", body={"id": "b"})
    calls = list(node.driver.calls)
    for at in range(1, 9):
        await lose_journal(node)
        worker = Worker(node.bus, node=NODE, hypervisors=[node.driver], journal=Mortal(node.disk, at))
        with pytest.raises(ExceptionGroup) as failure:
            await run_for_ever(worker)
        assert failure.value.subgroup(JournalError) is not None
        assert node.driver.calls == calls
    await lease_ended(node)
    node.disk.crash()
    async with node.worker():
        await node.ended("b")
        events = await node.events()
    assert [len(ends(events, identity)) for identity in ("a", "b")] == [1, 1]
    assert node.driver.calls == calls
    audit.check_sequences(events, NODE)


async def test_the_new_epoch_is_later_than_the_last_in_the_log(node: World) -> None:
    """However wrong the clock: else the worker would take itself for superseded."""
    async with node.worker():
        await node.create()
        last = (await node.events())[-1]
    await lose_journal(node)
    async with node.worker(clock=lambda: time.time() - 86_400):
        await node.do("suspend", id="a")
        events = await node.events()
    again = next(event for event in events if event["epoch"] != last["epoch"])
    assert again["epoch"] > last["epoch"]
    assert token.ulid_milliseconds(again["epoch"]) == token.ulid_milliseconds(last["epoch"]) + 1
    assert again["data"]["previous"] == {"epoch": last["epoch"], "sequence": last["sequence"]}


async def test_a_lease_that_lives_refuses_a_worker_without_its_journal_until_it_ends(node: World) -> None:
    """The epoch that it bears is not in the new journal, so it may be anybody's."""
    async with node.worker():
        await node.create()
    node.disk = MemoryDisk()
    with pytest.raises(ExceptionGroup) as failure:
        async with node.worker():
            pass
    assert failure.value.subgroup(Taken) is not None
    assert node.disk.contents.doubt == 0, "nothing is rebuilt while somebody else may be at work"
    node.disk.crash()
    await lease_ended(node)
    async with node.worker():
        assert (await node.do("suspend"))["ok"]


async def test_a_journal_that_lacks_nothing_is_not_rebuilt(node: World) -> None:
    """What had not begun is begun, though its worker died."""
    async with node.worker():
        await node.create()
    await node.send("suspend", body={"id": "a"})
    async with node.worker():
        assert outcome(await node.ended("a")) == (True, None)
    assert node.driver.calls == [("create-xml", WEB1), ("suspend", WEB1)]


async def test_the_past_is_read_however_often_the_broker_goes(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on where it was."""
    async with node.worker():
        await node.create()
        await node.do("suspend", id="a")
    await lose_journal(node)
    refusals = iter(range(6))
    original = node.bus.reader

    async def reader(*arguments: Any) -> Any:
        if next(refusals, None) is not None:
            raise Refused("not now")
        return await original(*arguments)

    monkeypatch.setattr(node.bus, "reader", reader)
    monkeypatch.setattr("workers.engine.rebuild.RETRY_S", 0.001)
    async with node.worker():
        assert (await node.do("resume"))["changed"]
    assert node.driver.calls.count(("suspend", WEB1)) == 1
