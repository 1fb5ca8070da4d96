"""Owner records: made before anything is sent, by one of several; removed when the domain is gone."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.bus.memory import MemoryBus
from orchestrator.bus.port import BusError, Expect, Full, Outgoing, Refused, Stale, Unavailable, Uncertain
from orchestrator.control import custody
from orchestrator.control.locate import ADOPTED
from orchestrator.engine.owners import Owners
from orchestrator.protocol import codec
from orchestrator.protocol.domain import Owner
from orchestrator.protocol.error import HypervisorRefused
from orchestrator.store.kv import KeyValue
from tests.unit.engine.world import SUBJECTS, World, uuid_of, world, xml

pytestmark = pytest.mark.anyio

ONE = uuid_of(1)


def owner(id: str = "k1", node: str = "n1") -> Owner:
    """Return a record."""
    return Owner(project="p", node=node, epoch=1, id=id)


async def gone(here: World) -> None:
    """Wait until the domain has no record."""

    async def no_record() -> bool:
        return await here.owner(ONE) is None

    await here.until(no_record)


async def asked(here: World, *ids: str) -> list[Any]:
    """Ask for the same new domain under each id, all at once."""
    answers: list[Any] = []

    async def ask(id: str) -> None:
        answers.append(await here.api("p", ONE, "create-xml", {"id": id, "args": {"xml": xml("web1")}}))

    async with anyio.create_task_group() as tasks:
        for id in ids:
            tasks.start_soon(ask, id)
    return answers


async def test_of_many_who_make_one_domain_at_once_one_does() -> None:
    """Through two coordinators, on one node."""
    async with world() as here:
        workers = [await here.worker("n1"), await here.worker("n2")]
        await here.coordinator("c1")
        await here.coordinator("c2")
        answers = await asked(here, *(f"k{number}" for number in range(12)))
        assert [True] == [answer["ok"] for answer in answers if answer["ok"]]
        assert {"already_exists"} == {answer["error"]["code"] for answer in answers if not answer["ok"]}
        assert 1 == len([worker for worker in workers if worker.ran])


async def test_of_many_copies_of_one_command_one_has_an_effect() -> None:
    """Through two coordinators; all are answered with its outcome."""
    async with world() as here:
        workers = [await here.worker("n1"), await here.worker("n2")]
        await here.coordinator("c1")
        await here.coordinator("c2")
        answers = await asked(here, *("k1",) * 12)
        assert [answers[0]] * 12 == answers
        assert 1 == sum(len(worker.ran) for worker in workers)
        assert {("p", "k1"): ["command.succeeded"]} == await here.terminals()


async def test_a_claim_returns_the_record_that_stands() -> None:
    """Another's if that was first, also between looking and writing."""
    async with world() as here:
        bucket = here.bucket("owners")
        owners = Owners(bucket)
        assert owner() == await owners.claim(ONE, owner())
        assert owner() == await owners.claim(ONE, owner("k2", "n2"))
        await owners.release(ONE, "k2")
        assert owner() == await here.owner(ONE)
        await owners.release(ONE, "k1")
        await owners.release(ONE, "k1")
        assert owner("k2", "n2") == await owners.claim(ONE, owner("k2", "n2"))


class Contended(KeyValue):
    """A bucket in which somebody else writes just before the first write of ours."""

    def __init__(self, here: World, *, then: bytes | None) -> None:
        super().__init__(here.bus, SUBJECTS.bucket("owners"))
        self._then = then
        self._first = True

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int = 0) -> int:
        """Write, after the other."""
        await self._contend(key)
        return await super().update(key, value, revision, ttl_s=ttl_s)

    async def remove(self, key: str, revision: int | None = None, *, marker_s: int = 0) -> None:
        """Remove, after the other."""
        await self._contend(key)
        await super().remove(key, revision, marker_s=marker_s)

    async def _contend(self, key: str) -> None:
        if self._first and self._then is not None:
            self._first = False
            await super().put(key, self._then)


async def test_of_two_who_write_at_once_one_follows_the_other() -> None:
    """Whatever each does with the record."""
    async with world() as here:
        theirs = codec.encode(owner("theirs"))
        assert owner("theirs") == await Owners(Contended(here, then=theirs)).claim(ONE, owner())
        assert owner("k3") == await Owners(Contended(here, then=theirs)).succeed(ONE, "n1", "k3", None)
        await Owners(Contended(here, then=theirs)).release(ONE, "k3")
        assert owner("theirs") == await here.owner(ONE)
        with pytest.raises(Stale):
            await here.bucket("owners").update(ONE, b"{}", 1)


async def test_a_record_is_taken_over_only_where_it_stands() -> None:
    """Not if it is gone, or names another node."""
    async with world() as here:
        owners = Owners(here.bucket("owners"))
        assert await owners.succeed(ONE, "n1", "k2", None) is None
        await owners.claim(ONE, owner())
        assert await owners.succeed(ONE, "n2", "k2", None) is None


async def test_what_was_learnt_late_of_a_failed_making_releases_its_record() -> None:
    """Nothing was made after all."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        worker.fail["create-xml"] = HypervisorRefused("no answer", outcome="unknown")
        await here.api("p", ONE, "create-xml", {"id": "k1", "args": {"xml": xml("web1")}})
        await anyio.sleep(0.2)
        assert await here.owner(ONE) is not None
        await worker.tell("command.settled", "p", ONE, "other", b'{"outcome":"none"}')
        await worker.tell("command.settled", "p", ONE, "k1", b'{"outcome":"none"}')
        await gone(here)


async def test_a_record_that_a_dead_leader_left_behind_is_removed() -> None:
    """Its domain was undefined, or never made, while nobody led."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator("c1")
        await here.api("p", ONE, "create-xml", {"id": "k1", "args": {"xml": xml("web1")}})
        await first.kill()
        await here.bus.append(Outgoing(SUBJECTS.run("n1", "p", ONE, "undefine"), b"", {"Virt-Id": "k2"}))
        await here.until(lambda: not worker.domains)
        await here.bucket("owners").put(uuid_of(2), codec.encode(owner(ADOPTED)))
        await here.coordinator("c2")
        await gone(here)
        assert await here.owner(uuid_of(2)) is not None


async def test_an_orphan_is_removed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command and no domain accounts for it; until then its domain is made where it says."""
    async with world() as here:
        await here.worker("n1", free_kib=1)
        await here.worker("n2", free_kib=1000)
        await here.bucket("owners").put(ONE, codec.encode(owner()))
        await here.coordinator()
        answer = await here.api("p", ONE, "create-xml", {"id": "k2", "args": {"xml": xml("web1")}})
        assert ("n1", True) == (answer["node"], answer["ok"])
        await here.bucket("owners").put(uuid_of(2), codec.encode(owner()))
        await anyio.sleep(0.1)
        assert await here.owner(uuid_of(2)) is not None
        monkeypatch.setattr(custody, "ORPHAN_S", 0.0)

        async def no_orphan() -> bool:
            return await here.owner(uuid_of(2)) is None

        await here.until(no_orphan)


async def test_a_domain_of_another_project_that_only_a_node_shows_is_not_made_again() -> None:
    """Its UUID is taken, though no record says so yet."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.worker("n2")
        running = await here.coordinator()
        await here.until(running.leads)
        await running.stop()
        await here.coordinator("c2", bus=None)
        await worker.show("q", ONE, "web1")
        answer = await here.api("p", ONE, "create-xml", {"args": {"xml": xml("web1")}})
        assert ("conflict", False) == (answer["error"]["code"], answer["ok"])


async def test_a_domain_that_only_a_node_shows_is_redefined_there() -> None:
    """And nowhere else, though a node with more memory is named."""
    async with world() as here:
        worker = await here.worker("n1", free_kib=1)
        await here.worker("n2", free_kib=1000)
        await here.coordinator()
        await worker.show("p", ONE, "web1")
        other = await here.api("p", ONE, "define-xml", {"args": {"xml": xml("web1"), "node": "n2"}})
        again = await here.api("p", ONE, "define-xml", {"args": {"xml": xml("web1")}})
        assert "conflict" == other["error"]["code"]
        assert ("n1", True) == (again["node"], again["ok"])


class Unlucky(MemoryBus):
    """A bus on which orders fail to be stored, in the ways given, before one is."""

    def __init__(self, here: World, *failures: BusError) -> None:
        super().__init__(here.broker, name="unlucky")
        self.failures = list(failures)

    async def append(self, message: Outgoing, expect: Expect | None = None) -> int:
        """Store, unless it is an order and a failure is left."""
        if self.failures and message.subject.startswith("virt.v1.run."):
            raise self.failures.pop(0)
        return await super().append(message, expect)


async def test_an_attempt_of_unknown_outcome_is_repeated_whatever_comes_then() -> None:
    """By `cmd` for as long as it takes: only the worker may end it, though the log is full or refuses, and past its deadline."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        bus = Unlucky(here, Unavailable("away"), Uncertain("?"), Full("full", 10077), Refused("no"), *[Uncertain("?")] * 20)
        await here.coordinator(bus=bus)
        sequence = await here.cmd("p", ONE, "start", {"timeout_s": 0.2})

        async def ended() -> bool:
            return ("p", f"m-cmd-{sequence}") in await here.terminals()

        await here.until(ended)
        assert ["command.succeeded"] == (await here.terminals())["p", f"m-cmd-{sequence}"]
        assert [] == bus.failures


async def test_by_api_an_attempt_of_unknown_outcome_is_given_up_at_the_deadline() -> None:
    """That is no end: it may have been stored."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        await here.coordinator(bus=Unlucky(here, *[Uncertain("?")] * 1000))
        answer = await here.api("p", ONE, "start", {"id": "k1", "timeout_s": 0.2})
        assert ("deadline", "unknown", False) == (answer["error"]["code"], answer["error"]["outcome"], answer["final"])
        assert {} == await here.terminals()


async def test_what_was_never_attempted_has_expired_at_the_deadline() -> None:
    """The broker could not be reached, so the coordinator ends it."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", ONE, "web1")
        await here.coordinator(bus=Unlucky(here, *[Unavailable("away")] * 1000))
        answer = await here.api("p", ONE, "start", {"id": "k1", "timeout_s": 0.2})
        assert ("deadline", "none") == (answer["error"]["code"], answer["error"]["outcome"])
        assert {("p", "k1"): ["command.expired"]} == await here.terminals()


async def test_a_message_that_the_log_refuses_ends_as_a_fault_of_ours() -> None:
    """Nothing was stored."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await here.api("p", ONE, "define-xml", {"args": {"xml": xml("web1")}})
        run = next(config for config in here.configs if config.name == SUBJECTS.log_run)
        await here.bus.provision([here.narrower(run)])
        answer = await here.api("p", ONE, "start", {"id": "k1", "actor": "me"})
        assert ("internal", "none") == (answer["error"]["code"], answer["error"]["outcome"])


async def test_without_a_broker_a_request_ends_with_its_deadline() -> None:
    """As expired: it was never sent on its way; its end is told when the broker is back."""
    async with world() as here:
        await here.worker("n1")
        running = await here.coordinator()
        await here.api("p", ONE, "define-xml", {"args": {"xml": xml("web1")}})
        await here.bus.publish(SUBJECTS.api("p", uuid_of(2), "start"), b'{"id": "k1", "timeout_s": 0.1}')
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        here.broker.cut(running.bus)
        await anyio.sleep(0.2)
        here.broker.restore(running.bus)

        async def ended() -> bool:
            return ("p", "k1") in await here.terminals()

        await here.until(ended)
