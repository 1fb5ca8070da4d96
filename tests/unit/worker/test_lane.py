"""Laws of lanes: calls that block are off the loop, bounded, and never in each other's way."""

from __future__ import annotations

import threading

import anyio
import pytest

from workers.engine.lane import Lanes, ThreadLane, done_within

pytestmark = pytest.mark.anyio


async def test_a_call_gives_its_result_or_its_error() -> None:
    """As if it had been called here."""
    lane = ThreadLane("test", 2)
    assert await lane.submit(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await lane.submit(lambda: 1 // 0)
    assert lane.active == 0


async def test_calls_that_hang_hold_up_nobody_until_the_limit() -> None:
    """What waits gets a thread of its own; beyond the limit it waits, and goes on when one returns."""
    lane, release = ThreadLane("test", 3), threading.Event()
    hung = [lane.submit(release.wait) for _ in range(2)]
    with anyio.fail_after(5):
        assert await lane.submit(lambda: "third") == "third"
    hung.append(lane.submit(release.wait))
    waiting = lane.submit(lambda: "fourth")
    await done_within(waiting, 0.1)
    assert not waiting.done()
    assert lane.active == 4
    release.set()
    with anyio.fail_after(5):
        assert await waiting == "fourth"
        assert [await call for call in hung] == [True, True, True]


async def test_short_calls_share_one_thread() -> None:
    """Threads that contend cost more than they win."""
    lane = ThreadLane("test", 8)
    names = [await lane.submit(lambda: threading.current_thread().name) for _ in range(50)]
    assert len(set(names)) == 1


async def test_an_abandoned_call_goes_on_and_harms_nobody() -> None:
    """Libvirt cannot be cancelled, only left."""
    lane, release = ThreadLane("test", 2), threading.Event()
    call = lane.submit(release.wait)
    call.cancel()
    release.set()
    with anyio.fail_after(5):
        assert await lane.submit(lambda: "next") == "next"


async def test_waiting_ends_with_the_call_or_with_the_time() -> None:
    """Whichever comes first; the call itself is not touched."""
    lane, release = ThreadLane("test", 2), threading.Event()
    call = lane.submit(release.wait)
    await done_within(call, 0.01)
    assert not call.done()
    release.set()
    with anyio.fail_after(5):
        await done_within(call, 60)
    assert call.result() is True


async def test_a_closed_lane_has_no_thread_and_takes_no_call() -> None:
    """Idle threads end at once, a busy one with its call; what had not begun is not begun any more."""
    lane, release, begun = ThreadLane("closed", 1), threading.Event(), threading.Event()

    def hang() -> bool:
        begun.set()
        return release.wait()

    running = lane.submit(hang)
    waiting = lane.submit(begun.clear)
    await anyio.to_thread.run_sync(begun.wait)
    release.set()
    with anyio.fail_after(5):
        assert await lane.close(5) == 0
    assert [thread for thread in threading.enumerate() if thread.name.startswith("closed-")] == []
    assert (running.done(), waiting.cancelled(), begun.is_set(), lane.active) == (True, True, True, 0)
    with pytest.raises(RuntimeError):
        lane.submit(begun.clear)


async def test_a_thread_that_hangs_is_left_and_counted_and_ends_with_its_call() -> None:
    """Nothing waits for it longer than it was told to."""
    lane, release = ThreadLane("hung", 2), threading.Event()
    hung = lane.submit(release.wait)
    with anyio.fail_after(5):
        assert await lane.close(0.01) == 1
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("hung-")]
    assert thread.daemon
    release.set()
    with anyio.fail_after(5):
        await anyio.to_thread.run_sync(thread.join)
        await hung


async def test_lanes_close_together_within_the_time() -> None:
    """Those without threads too."""
    lanes, release = Lanes.threads(), threading.Event()
    hung = [lane.submit(release.wait) for lane in (lanes.short, lanes.long)]
    with anyio.fail_after(5):
        assert await lanes.close(0.01) == 2
    release.set()
    with anyio.fail_after(5):
        assert [await call for call in hung] == [True, True]
    assert await Lanes.inline().close(0.01) == 0


async def test_a_call_that_no_thread_has_begun_can_be_taken_back_and_is_never_made() -> None:
    """One that has begun cannot."""
    lane, release, made = ThreadLane("test", 1), threading.Event(), list[int]()
    entered = threading.Event()

    def hang() -> bool:
        entered.set()
        return release.wait(10)

    running, waiting, behind = lane.submit(hang), lane.submit(lambda: made.append(1)), lane.submit(lambda: made.append(2))
    await anyio.to_thread.run_sync(entered.wait)
    assert [False, True, False] == [lane.withdraw(call) for call in (running, waiting, waiting)]
    assert (True, 2) == (waiting.cancelled(), lane.active)
    release.set()
    with anyio.fail_after(5):
        await running
        await behind
    assert [2] == made
    assert not lane.withdraw(running)
    await lane.close(1.0)


async def test_threads_that_hang_are_replaced_up_to_the_spare_ones_and_go_when_they_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the lane is full, until one returns."""
    monkeypatch.setattr("workers.engine.lane.HUNG_S", 0.05)
    monkeypatch.setattr("workers.engine.lane.RELIEF_S", 0.01)
    lane, release = ThreadLane("spare", 2, spare=2), threading.Event()
    hung = []
    with anyio.fail_after(10):
        for _ in range(3):
            hung.append(lane.submit(lambda: release.wait(10)))
            assert 7 == await lane.submit(lambda: 7)
        assert 3 == lane.active
        hung.append(lane.submit(lambda: release.wait(10)))
        while not lane.full:
            await anyio.sleep(0.01)
        waiting = lane.submit(lambda: 8)
        await done_within(waiting, 0.1)
        assert not waiting.done()
        release.set()
        assert 8 == await waiting
        assert [True] * 4 == [await call for call in hung]
        while sum(thread.name.startswith("spare-") for thread in threading.enumerate()) > 2:
            await anyio.sleep(0.01)
    assert (False, 0) == (lane.full, lane.active)
    assert 0 == await lane.close(1.0)


async def test_a_lane_without_spare_threads_is_never_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of minutes are not taken to hang: who comes then waits."""
    monkeypatch.setattr("workers.engine.lane.HUNG_S", 0.0)
    lane, release = ThreadLane("test", 1), threading.Event()
    running = lane.submit(lambda: release.wait(10))
    assert not lane.full
    release.set()
    await running
    await lane.close(1.0)
