"""Commands by `cmd`: fire and forget, in the order of the log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from orchestrator.bus.port import Message
from orchestrator.engine.router import Router
from orchestrator.protocol import codec
from orchestrator.store.kv import KeyValue
from orchestrator.store.port import Entry
from tests.unit.engine.world import SUBJECTS, World, uuid_of, world, xml

pytestmark = pytest.mark.anyio

ONE = uuid_of(1)


async def ended(here: World, *ids: str) -> None:
    """Wait until commands have ended."""

    async def all_ended() -> bool:
        return {("p", id) for id in ids} <= set(await here.terminals())

    await here.until(all_ended)


async def test_a_command_without_an_id_is_called_by_its_place() -> None:
    """The copy that goes to the node says so, and where it came from."""
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        sequence = await here.cmd("p", "web1", "define-xml", {"args": {"xml": xml()}, "timeout_s": 7})
        await ended(here, f"m-cmd-{sequence}")
        headers = worker.received[0].headers
        assert (f"m-cmd-{sequence}", str(sequence), "1") == (headers["Virt-Id"], headers["Virt-Cmd"], headers["Virt-Fence"])


async def test_commands_of_one_domain_keep_their_order_by_name_and_by_uuid() -> None:
    """Also where the domain was not known before, and while others are slow."""
    async with world() as here:
        one, two = await here.worker("n1"), await here.worker("n2")
        one.gate["define-xml"] = anyio.Event()
        ids: list[str] = []
        await here.cmd("p", uuid_of(9), "define-xml", {"id": "slow", "args": {"xml": xml("slow"), "node": "n1"}})
        await here.cmd("p", ONE, "define-xml", {"id": "k0", "args": {"xml": xml("web1"), "node": "n2"}})
        for number in range(20):
            ids.append(f"k{number + 1}")
            await here.cmd("p", "web1" if number % 3 else ONE, "reset", {"id": ids[-1]})
        await here.coordinator()
        await ended(here, *ids)
        assert ["k0", *ids] == [id for _, id, _ in two.ran]
        assert [] == one.ran
        one.gate["define-xml"].set()
        await ended(here, "slow")


async def test_the_order_holds_for_domains_that_the_coordinator_is_only_about_to_hear_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name first and by UUID then, while the name is not known yet."""
    watch = KeyValue.watch

    async def late(self: KeyValue, keys: str = ">") -> AsyncGenerator[list[Entry] | None]:
        async for portion in watch(self, keys):
            await anyio.sleep(0.02)
            yield portion

    async with world() as here:
        worker = await here.worker("n1")
        monkeypatch.setattr(KeyValue, "watch", late)
        running = await here.coordinator()
        await here.until(running.leads)
        for number in range(10):
            await worker.show("p", uuid_of(number), f"web{number}")
            await here.cmd("p", f"web{number}", "start", {"id": f"a{number}"})
            await here.cmd("p", uuid_of(number), "reset", {"id": f"b{number}"})
        await ended(here, *(f"b{number}" for number in range(10)), "a9")
        for number in range(10):
            assert [f"a{number}", f"b{number}"] == [id for _, id, _ in worker.ran if id[1:] == str(number)]


async def test_a_repeat_has_its_result_sent_again() -> None:
    """By the worker that has it, or by the coordinator where that ended it; no event is made."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        heard: list[Message] = []
        async with here.bus.listen(SUBJECTS.results, heard.append):
            for _ in range(2):
                await here.cmd("p", ONE, "define-xml", {"id": "k1", "args": {"xml": xml("web1")}})
                await here.cmd("p", "nobody", "start", {"id": "k2"})
            await here.until(lambda: len(heard) == 4)
        assert {"k1": 2, "k2": 2} == {
            id: sum(codec.decode(message.body, dict)["id"] == id for message in heard) for id in ("k1", "k2")
        }
        assert {("p", "k1"): ["command.succeeded"], ("p", "k2"): ["command.failed"]} == await here.terminals()


async def test_a_repeat_is_answered_when_the_domain_is_gone_and_nobody_remembers() -> None:
    """The log of events tells who ended it, and that one sends the result again."""
    async with world() as here:
        worker = await here.worker("n1")
        first = await here.coordinator("c1")
        await here.api("p", ONE, "define-xml", {"id": "k1", "args": {"xml": xml("web1")}})
        await here.api("p", ONE, "undefine", {"id": "k2"})

        async def released() -> bool:
            return await here.owner(ONE) is None

        await here.until(released)
        await first.stop()
        await here.coordinator("c2")
        heard: list[Message] = []
        async with here.bus.listen(SUBJECTS.results, heard.append):
            await here.cmd("p", ONE, "undefine", {"id": "k2"})
            await here.until(lambda: heard)
        assert (SUBJECTS.res("n1", "p", "k2"), 2) == (heard[0].subject, len(worker.ran))


async def test_an_id_of_another_command_ends_under_the_commands_place() -> None:
    """Who waits under the id is told, and told that it is not the end."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        await here.api("p", ONE, "define-xml", {"id": "k1", "args": {"xml": xml("web1")}})
        heard: list[Message] = []
        async with here.bus.listen(SUBJECTS.res("_", "p", "k1"), heard.append):
            sequence = await here.cmd("p", ONE, "start", {"id": "k1"})
            await ended(here, f"m-cmd-{sequence}")
            await here.until(lambda: heard)
        answer = codec.decode(heard[0].body, dict)
        assert ("k1", "conflict", False) == (answer["id"], answer["error"]["code"], answer["final"])
        assert ["command.succeeded"] == (await here.terminals())["p", "k1"]


async def test_what_came_too_late_has_expired() -> None:
    """The time of the log's own stamp counts."""
    async with world() as here:
        await here.worker("n1")
        sequence = await here.cmd("p", ONE, "start", {"timeout_s": 0.01})
        await here.cmd("p", uuid_of(2), "define-xml", {"id": "k2", "args": {"xml": xml("web2")}, "timeout_s": 0.01})
        await anyio.sleep(0.02)
        await here.coordinator()
        await ended(here, f"m-cmd-{sequence}", "k2")
        assert ["command.expired"] == (await here.terminals())["p", f"m-cmd-{sequence}"]


async def test_bad_input_ends_with_its_place_and_the_log_goes_on() -> None:
    """Its terminal event tells the command's sequence and its subject."""
    async with world() as here:
        await here.worker("n1")
        await here.coordinator()
        bad = await here.cmd("p", "web1", "frobnicate")
        worse = await here.cmd("p%", "web1", "start")
        good = await here.cmd("p", ONE, "define-xml", {"args": {"xml": xml("web1")}})
        await ended(here, f"m-cmd-{bad}", f"m-cmd-{good}")
        told = {event.commandid: codec.decode(codec.encode(event.data), dict) for event in await here.events()}
        assert (bad, "virt.v1.cmd.p.web1.frobnicate") == (told[f"m-cmd-{bad}"]["cmd"], told[f"m-cmd-{bad}"]["subject"])
        assert ("_", worse) == (told[f"m-cmd-{worse}"]["project"], told[f"m-cmd-{worse}"]["cmd"])


async def test_a_fault_of_ours_ends_one_command_and_not_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged."""
    fly = Router.fly

    async def faulty(self: Router, flight: Any) -> Any:
        if flight.order.id == "k1":
            raise ZeroDivisionError
        return await fly(self, flight)

    monkeypatch.setattr(Router, "fly", faulty)
    async with world() as here:
        worker = await here.worker("n1")
        await here.coordinator()
        await here.cmd("p", ONE, "define-xml", {"id": "k1", "args": {"xml": xml("web1")}})
        await here.cmd("p", uuid_of(2), "define-xml", {"id": "k2", "args": {"xml": xml("web2")}})
        await ended(here, "k2")
        assert ["k2"] == [id for _, id, _ in worker.ran]

        async def trimmed() -> bool:
            return not await here.log("VIRT_CMD")

        await here.until(trimmed)
