"""Laws of lanes: calls that block are off the loop, bounded, and never in each other's way."""

from __future__ import annotations

import threading

import anyio
import pytest

from workers.engine.lane import ThreadLane, done_within

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
