"""Who leads, and what a change of leader does."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.control import lease
from orchestrator.engine.keeper import Cursor, Deposed
from orchestrator.engine.pace import Pace
from orchestrator.engine.progress import Position
from orchestrator.protocol import codec
from orchestrator.protocol.node import Leader, Reached
from tests.unit.engine.world import QUICK, World, world, xml

pytestmark = pytest.mark.anyio


async def leader(here: World) -> Leader | None:
    """Return who leads."""
    entry = await here.bucket("cursors").get("leader")
    return None if entry is None or entry.value is None else codec.decode(entry.value, Leader)


async def reached(here: World) -> Reached | None:
    """Return the stored cursor."""
    entry = await here.bucket("cursors").get("cmd")
    return None if entry is None or entry.value is None else codec.decode(entry.value, Reached)


async def test_one_leads_and_the_other_takes_over_when_it_leaves() -> None:
    """At once, with a higher epoch; both answer requests all the while."""
    async with world() as here:
        await here.worker("n1")
        slow = Pace(look=0.1, retry=0.01, tick=0.05, renew=60.0)
        first = await here.coordinator("c1", pace=slow)
        await here.until(first.leads)
        second = await here.coordinator("c2", pace=slow)
        before = await leader(here)
        assert not await second.leads()
        await first.stop()
        await here.until(second.leads, seconds=2)
        after = await leader(here)
        assert before is not None
        assert after is not None
        assert (1, 2) == (before.epoch, after.epoch)
        assert (await here.api("p", "web1", "define-xml", {"args": {"xml": xml()}}))["ok"]


async def test_a_leader_that_another_replaced_stops() -> None:
    """It stores nothing more, and stands by."""
    async with world() as here:
        first = await here.coordinator("c1")
        await here.until(first.leads)
        usurper = Leader(coordinator="c9", epoch=9, updated="")
        await here.bucket("cursors").put("leader", codec.encode(usurper))
        await anyio.sleep(0.2)  # it renews every 0.05 s, and learns then
        await here.cmd("p", "nobody", "start")
        await anyio.sleep(0.2)
        assert usurper == await leader(here)
        assert [] == await here.log("VIRT_EVT")
        assert not first.stopped.is_set()


async def test_who_cannot_renew_stops_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its key runs out; when the broker is back it leads again."""
    monkeypatch.setattr("orchestrator.engine.leadership.LEADER_SAFE_S", 0.2)
    async with world() as here:
        first = await here.coordinator("c1")
        await here.until(first.leads)
        here.broker.cut(first.bus)
        await anyio.sleep(0.3)
        await here.bucket("cursors").remove("leader", marker_s=60)
        here.broker.restore(first.bus)

        async def again() -> bool:
            now = await leader(here)
            return now is not None and (now.coordinator, now.epoch) == ("c1", 2)

        await here.until(again)


async def test_a_record_that_outlives_its_holder_is_taken_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker did not end it."""
    monkeypatch.setattr(lease, "LEADER_SILENT_S", 0.2)
    async with world() as here:
        dead = Leader(coordinator="c9", epoch=7, updated="")
        await here.bucket("cursors").put("leader", codec.encode(dead))
        first = await here.coordinator("c1")
        assert not await first.leads()
        await here.until(first.leads)
        now = await leader(here)
        assert now is not None
        assert 8 == now.epoch


async def test_a_cursor_of_an_earlier_term_can_no_longer_be_stored() -> None:
    """A compare-and-set with the epoch holds each term to its time."""
    async with world() as here:
        old, new = Cursor(here.bucket("cursors"), 1), Cursor(here.bucket("cursors"), 2)
        assert Position(0, 0, 0) == await old.begin()
        await old.store(Position(5, 50, 500))
        assert Position(5, 50, 500) == await new.begin()
        with pytest.raises(Deposed):
            await old.store(Position(6, 60, 600))
        with pytest.raises(Deposed):
            await old.begin()
        again = Cursor(here.bucket("cursors"), 2)
        await again.begin()
        await new.store(Position(7, 70, 700))  # an attempt of its own epoch, whose outcome was unknown
        stored = await reached(here)
        assert Reached(cmd=7, run=70, evt=700, epoch=2) == stored


async def test_a_leader_whose_cursor_is_taken_stops_leading() -> None:
    """Even if its own key still stands."""
    async with world() as here:
        first = await here.coordinator("c1", pace=Pace(look=0.1, retry=0.01, tick=0.02, renew=60.0))
        await here.until(first.leads)
        stolen = Reached(cmd=0, run=0, evt=0, epoch=5)
        await here.bucket("cursors").put("cmd", codec.encode(stolen))
        await here.cmd("p", "nobody", "start")

        async def leads_later() -> bool:
            now = await leader(here)
            return now is not None and now.epoch == 6

        await here.until(leads_later)


async def test_the_cursor_moves_and_what_lies_behind_is_trimmed() -> None:
    """`VIRT_CMD` up to it; of `VIRT_RUN` what the node says is done, and of a node without a lease nothing."""
    async with world() as here:
        one, two = await here.worker("n1"), await here.worker("n2")
        await here.coordinator(pace=QUICK)
        await here.api("p", "web1", "define-xml", {"args": {"xml": xml(), "node": "n1"}})
        await here.api("p", "web2", "define-xml", {"args": {"xml": xml(), "node": "n2"}})
        await two.leave()
        for name in ("web1", "web2"):
            last = await here.cmd("p", name, "start")
        await here.until(lambda: (len(one.ran), len(two.ran)) == (2, 2))

        async def trimmed() -> bool:
            left = [message.subject.split(".")[3] for message in await here.log("VIRT_RUN")]
            return left == ["n2", "n2"] and not await here.log("VIRT_CMD")

        await here.until(trimmed)
        stored = await reached(here)
        assert stored is not None
        assert (last, 1) == (stored.cmd, stored.epoch)


async def test_what_others_put_into_the_log_is_trimmed_too() -> None:
    """Though the leader routes nothing itself."""
    async with world() as here:
        worker = await here.worker("n1")
        await worker.show("p", "00000000-0000-4000-8000-000000000001", "web1")
        await here.coordinator()
        await here.api("p", "web1", "start")

        async def trimmed() -> bool:
            return not await here.log("VIRT_RUN")

        await here.until(trimmed)


async def test_a_log_that_lost_its_end_is_read_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that come again are new commands."""
    monkeypatch.setattr("orchestrator.engine.follower._WAIT_S", 0.05)
    async with world() as here:
        worker = await here.worker("n1")
        await here.bucket("cursors").put("cmd", codec.encode(Reached(cmd=10**17, run=0, evt=0, epoch=1)))
        await here.coordinator()
        await here.cmd("p", "web1", "define-xml", {"args": {"xml": xml()}})
        await here.until(lambda: worker.ran)
