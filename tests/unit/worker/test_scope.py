"""Laws of `only`: what a worker does not serve is neither told nor touched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from orchestrator.protocol.error import Invalid
from orchestrator.protocol.verb import NoArgs, XmlArgs
from tests.unit.worker.world import NODE, SUBJECTS, WEB1, WEB2, XML, World, kinds, world
from workers.domain.scope import read_scope
from workers.drivers.port import Happening, Tag

pytestmark = pytest.mark.anyio


class Deaf:
    """Listens while somebody else uses the hypervisor."""

    def happened(self, happening: Happening) -> None:
        """Take no notice."""

    def lost(self, reason: str) -> None:
        """Take no notice."""


@pytest.fixture
async def node() -> AsyncIterator[World]:
    """Give a node with a running domain of project `a`, and one of project `b` with a label."""
    async with world() as made:
        made.driver.open(Deaf())
        for uuid, name, tag in ((WEB1, "web1", Tag(project="a")), (WEB2, "web2", Tag(project="b", labels={"team": "red"}))):
            made.driver.run("create-xml", uuid, XmlArgs(xml=_named(name, uuid)), tag)
        made.driver.close()
        made.driver.calls.clear()
        yield made


def _named(name: str, uuid: str) -> str:
    return XML.format(name=name).replace("</name>", f"</name><uuid>{uuid}</uuid>")


async def _code(node: World, verb: str, uuid: str, project: str, **body: object) -> str | None:
    sequence = await node.send(verb, uuid, project=project, body=body)
    ended = await node.ended(f"m-run-{sequence}")
    code: str | None = ended.get("error", {}).get("code")
    return code


@pytest.mark.parametrize(
    ("only", "served", "other"), [("project=a", (WEB1, "a"), (WEB2, "b")), ("label=team=red", (WEB2, "b"), (WEB1, "a"))]
)
async def test_a_worker_serves_only_what_it_is_told_to(node: World, only: str, served: tuple[str, str], other: tuple[str, str]) -> None:
    """The other domain has no state, no event and no incarnation, is not found, and its UUID is taken."""
    async with node.worker(only=[only]):
        assert await _code(node, "suspend", *served) is None
        assert await _code(node, "suspend", *other) == "not_found"
        ask = await node.client.request(SUBJECTS.ask(NODE, other[1], other[0], "get"), b"", timeout_s=5)
        assert json.loads(ask.body)["error"]["code"] == "not_found"
        assert await _code(node, "define-xml", other[0], served[1], args={"xml": _named("web9", other[0])}) == "already_exists"
        assert await node.state(served[0], served[1]) is not None
        assert await node.state(other[0], other[1]) is None
        assert {"command.failed"} == set(kinds(await node.events(), other[0]))
    assert node.driver.calls == [("suspend", served[0])]
    seen = node.driver.machine.domains[other[0]].sighting(other[0])
    assert (seen.state, seen.incarnation) == ("running", None)


async def test_events_of_others_are_not_told(node: World) -> None:
    """Whatever somebody else does to a domain that is not served."""
    async with node.worker(only=["project=a"]):
        node.driver.machine.suspend(WEB2, NoArgs(), Tag(project="b"))
        assert await _code(node, "suspend", WEB1, "a") is None
        assert kinds(await node.events(), WEB2) == []


async def test_a_project_that_is_not_served_gets_nothing_made(node: World) -> None:
    """Not even a domain that would be its own."""
    uuid = WEB1[:-1] + "9"
    async with node.worker(only=["project=a"]):
        assert await _code(node, "create-xml", uuid, "b", args={"xml": _named("web9", uuid)}) == "not_found"
    assert uuid not in node.driver.machine.domains
    assert node.driver.calls == []


async def test_a_worker_with_labels_gives_them_to_what_it_makes(node: World) -> None:
    """Else it could not serve it."""
    uuid = WEB1[:-1] + "9"
    async with node.worker(only=["label=team=red", "project=b"]):
        assert await _code(node, "create-xml", uuid, "b", args={"xml": _named("web9", uuid)}) is None
        state = await node.state(uuid, "b")
        assert state is not None
        assert state["labels"] == {"team": "red"}
        record = await node.client.last("KV_virt_nodes", f"$KV.virt_nodes.{NODE}")
        assert record is not None
        said = json.loads(record.body)
        assert (said["projects"], said["schedulable"], said["domain_count"]) == (["b"], False, 1), "as it was at the start"


async def test_a_domain_that_is_served_no_more_is_told_as_former_and_not_as_gone(node: World) -> None:
    """It lives on; only its state key goes."""
    async with node.worker():
        assert await node.state(WEB2, "b") is not None
    async with node.worker(only=["project=a"]):
        await _code(node, "suspend", WEB1, "a")
        assert await node.state(WEB2, "b") is None
        *before, last = [event for event in await node.events() if event["subject"] == WEB2]
        assert [event["type"] for event in before] == ["virt.v1.lifecycle.defined", "virt.v1.lifecycle.started"]
        assert (last["type"], last["data"]["role"], last["synthetic"]) == ("virt.v1.state.changed", "former", True)
    async with node.worker():
        assert await node.state(WEB2, "b") is not None


async def test_a_domain_that_is_given_away_while_it_is_served_is_told_as_former(node: World) -> None:
    """Whoever changed its metadata; an event of it brings it to light."""
    async with node.worker(only=["project=a"]):
        assert await node.state(WEB1, "a") is not None
        node.driver.machine.define(WEB1, XmlArgs(xml=_named("web1", WEB1)), Tag(project="b"))
        await node.until(lambda events: any(event["data"].get("role") == "former" for event in events))
        assert await _code(node, "suspend", WEB1, "a") == "not_found"
        assert await node.state(WEB1, "a") is None
        assert kinds(await node.events(), WEB1)[-2:] == ["state.changed", "command.failed"]


@pytest.mark.parametrize("only", ["", "project", "project=", "project=a.b", "label=team", "label==red", "team=red"])
async def test_what_names_no_scope_is_invalid(only: str) -> None:
    """And says how it is right."""
    with pytest.raises(Invalid):
        read_scope([only], "default")


async def test_one_label_cannot_have_two_values() -> None:
    """No domain could."""
    with pytest.raises(Invalid):
        read_scope(["label=team=red", "label=team=blue"], "default")
