"""What is read through `api`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.control import lease
from orchestrator.engine import recent
from orchestrator.protocol import codec
from tests.unit.engine.world import QUICK, SUBJECTS, World, uuid_of, world, xml

pytestmark = pytest.mark.anyio

ONE = uuid_of(1)


def code(answer: dict[str, Any]) -> str:
    """Return the code of a refusal."""
    assert not answer["ok"], answer
    return str(answer["error"]["code"])


async def made(here: World, uuid: str = ONE, name: str = "web1", project: str = "p", id: str | None = None) -> None:
    """Define a domain."""
    body = {"args": {"xml": xml(name)}} | ({} if id is None else {"id": id})
    assert (await here.api(project, uuid, "define-xml", body))["ok"]


async def test_a_query_is_answered_by_the_domains_node() -> None:
    """By UUID or by name, and its refusal is passed on with its headers."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await made(here)
        by_uuid, by_name = await here.api("p", ONE, "get"), await here.api("p", "web1", "get")
        del worker.domains[ONE]
        got = await here.bus.request(SUBJECTS.api("p", ONE, "get"), b"", timeout_s=5)
        assert by_uuid == by_name
        assert ("web1", "n1") == (by_uuid["result"]["domain"]["name"], by_uuid["result"]["domain"]["node"])
        assert ("not_found", "404") == (got.headers["Nats-Service-Error"], got.headers["Nats-Service-Error-Code"])


async def test_a_query_for_what_is_not_there_is_refused_without_an_event() -> None:
    """Reading is no command."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await made(here)
        before = len(await here.events())
        answers = [
            await here.api("p", "nobody", "get"),
            await here.api("q", ONE, "get"),
            await here.api("p", uuid_of(9), "xml"),
            await here.api("p", ONE, "get", {"nonsense": 1}),
            await here.api("p", "a%b", "get"),
        ]
        assert ["not_found", "not_found", "not_found", "invalid", "invalid"] == [code(answer) for answer in answers]
        assert before == len(await here.events())


async def test_a_query_to_a_node_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once where nobody listens or its lease has run out, else after a while."""
    async with world() as here:
        worker = await here.worker("n1")
        running = await here.coordinator(pace=QUICK)
        await made(here)
        here.broker.cut(worker.bus)
        nobody = await here.api("p", ONE, "get")
        here.broker.restore(worker.bus)
        await worker.bus.link.up()

        async def silent(*_: Any) -> Any:
            await anyio.sleep_forever()

        monkeypatch.setattr(worker, "answer", silent)
        await here.until(lambda: running.bus.link.connected)
        monkeypatch.setattr(lease, "LEASE_S", 0.0)
        await worker.leave()
        gone = await here.api("p", ONE, "get")
        assert ["node_unavailable", "node_unavailable"] == [code(nobody), code(gone)]


async def test_domains_are_listed_by_project_and_in_pages() -> None:
    """All of them, once, in the same order each time."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        for number in range(5):
            await made(here, uuid_of(number), f"web{number}")
        await made(here, uuid_of(9), "other", project="q")

        seen: list[str] = []
        body: dict[str, Any] = {"args": {"limit": 2}}
        while True:
            result = (await here.api("p", "_", "domains", body))["result"]
            seen += [domain["name"] for domain in result["domains"]]
            if "next" not in result:
                break
            body = {"args": {"limit": 2, "after": result["next"]}}
        everything = (await here.api("_", "_", "domains"))["result"]["domains"]
        assert [f"web{number}" for number in range(5)] == seen
        assert [*seen, "other"] == [domain["name"] for domain in everything]


async def test_a_list_shows_what_was_written_before_it_was_asked_for() -> None:
    """However fast one asks."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        for number in range(20):
            await worker.show("p", uuid_of(number), f"web{number}")
            names = [domain["name"] for domain in (await here.api("p", "_", "domains"))["result"]["domains"]]
            assert f"web{number}" in names


async def test_nodes_are_listed_for_who_asks_without_a_project() -> None:
    """They belong to none."""
    async with world() as here:
        await here.worker("n2")
        await here.worker("n1")
        await here.coordinator()
        listed = await here.api("_", "_", "nodes")
        assert ["n1", "n2"] == [node["node"] for node in listed["result"]["nodes"]]
        refused = [await here.api("p", "_", "nodes"), await here.api("_", ONE, "nodes"), await here.api("p%", "_", "domains")]
        assert ["invalid"] * 3 == [code(answer) for answer in refused]


async def test_what_is_recorded_of_a_command_is_told() -> None:
    """From memory, from the node's ledger, from any ledger, from the log; with or without its domain."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator("c1")
        await made(here, id="k1")
        await here.api("p", "nobody", "start", {"id": "k2"})
        told = [await here.api("p", "_", "command", {"args": {"id": id}}) for id in ("k1", "k2")]
        await first.stop()
        await here.coordinator("c2")
        told += [await here.api("p", domain, "command", {"args": {"id": "k1"}}) for domain in ("_", ONE, "web1")]
        told += [await here.api("p", "_", "command", {"args": {"id": "k2"}})]
        worker._ledger.clear()
        told += [await here.api("p", ONE, "command", {"args": {"id": "k1"}})]
        records = [answer["result"]["command"] for answer in told]
        assert ["k1", "k2", "k1", "k1", "k1", "k2", "k1"] == [record["id"] for record in records]
        assert ["n1", "_", "n1", "n1", "n1", "_", "n1"] == [record["node"] for record in records]
        assert [True, False, True, True, True, False, True] == [record["result"]["ok"] for record in records]


async def test_a_command_that_nobody_knows_is_not_found() -> None:
    """Nor one of another project, nor one whose domain nobody knows."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await made(here, id="k1")
        answers = [
            await here.api("p", "_", "command", {"args": {"id": "k9"}}),
            await here.api("q", "_", "command", {"args": {"id": "k1"}}),
            await here.api("p", "nobody", "command", {"args": {"id": "k9"}}),
            await here.api("_", "_", "command", {"args": {"id": "k1"}}),
        ]
        assert ["not_found", "not_found", "not_found", "invalid"] == [code(answer) for answer in answers]


async def test_a_result_too_large_to_be_kept_is_asked_for() -> None:
    """Memory is bounded, ledgers are not forgotten."""
    kept = recent.Recent(limit=2)
    kept.learn("n1", "p", "k1", b"x" * (recent.MAX_RESULT + 1))
    kept.learn("n1", "p", "k2", codec.encode({"ok": True}))
    kept.learn("n2", "p", "k2", b"later")
    known, second = kept.find("p", "k1"), kept.find("p", "k2")
    assert known is not None
    assert second is not None
    assert ("n1", None) == (known.node, known.result)
    assert ("n1", b'{"ok":true}') == (second.node, second.result)
    kept.enter("p", "k3")
    assert kept.find("p", "k1") is None


async def test_a_coordinator_is_found_as_a_micro_service() -> None:
    """With its name in the metadata (ADR-32)."""
    async with world() as here:
        await here.coordinator("c7")
        got = await here.bus.request("$SRV.PING.virt-api", b"", timeout_s=5)
        answer = codec.decode(got.body, dict)
        assert ("virt-api", {"coordinator": "c7"}) == (answer["name"], answer["metadata"])
