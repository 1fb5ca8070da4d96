"""Laws of a hypervisor's share of the threads."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import anyio
import pytest

from workers.engine.lane import Lanes, ThreadLane
from workers.engine.share import Share, shares

pytestmark = pytest.mark.anyio


def lanes(limit: int = 4) -> Lanes:
    """Return lanes of few threads."""
    return Lanes(short=ThreadLane("s", limit), long=ThreadLane("l", limit), reads=ThreadLane("r", 1), disk=ThreadLane("d", 1))


async def test_one_hypervisor_alone_has_all() -> None:
    """Nothing stands between it and its threads."""
    whole = lanes()
    assert [whole] == shares(whole, 1)
    assert [] == shares(whole, 0)


async def test_several_have_equal_parts_and_at_least_one_thread_each() -> None:
    """However many they are."""
    parts = shares(lanes(4), 3)
    assert [(1, 1, 1)] * 3 == [(one.short.limit, one.long.limit, one.reads.limit) for one in parts]
    assert [2, 2] == [one.short.limit for one in shares(lanes(4), 2)]


async def test_calls_that_hang_in_one_share_hold_up_no_other() -> None:
    """They wait for each other, in order."""
    whole, release, order = lanes(2), threading.Event(), list[int]()
    stuck, free = (Share(whole.short, 1) for _ in range(2))
    hanging = [stuck.submit(lambda: order.append(release.wait(10)))]
    hanging += [stuck.submit(partial(order.append, at)) for at in range(3)]
    with anyio.fail_after(5):
        assert 7 == await free.submit(lambda: 7)
    assert (4, [], 0) == (stuck.active, order, free.active)
    release.set()
    with anyio.fail_after(5):
        await asyncio.gather(*hanging)
    assert (0, [True, 0, 1, 2]) == (stuck.active, order)
    await whole.close(1.0)


async def test_errors_come_through() -> None:
    """To who submitted, and the next call is made all the same."""

    def fail() -> None:
        raise ValueError("no")

    whole = lanes()
    share = Share(whole.short, 1)
    failing, next_one = share.submit(fail), share.submit(lambda: 1)
    with pytest.raises(ValueError, match="no"):
        await failing
    assert 1 == await next_one
    await whole.close(1.0)


async def test_a_call_that_waits_and_is_left_is_never_made() -> None:
    """One that runs is."""
    whole, release, made = lanes(), threading.Event(), list[int]()
    share = Share(whole.short, 1)
    first = share.submit(lambda: release.wait(10))
    second, third = (share.submit(partial(made.append, at)) for at in (2, 3))
    second.cancel()
    first.cancel()
    release.set()
    with anyio.fail_after(5):
        await third
    assert [3] == made
    await whole.close(1.0)


async def test_what_waits_is_dropped_with_the_lane() -> None:
    """Nothing more is made then, and who waits is told."""
    whole, release, made = lanes(1), threading.Event(), list[int]()
    share = Share(whole.short, 2)
    entered = threading.Event()

    def hang() -> None:
        entered.set()
        release.wait(10)

    running, waiting, behind = share.submit(hang), *(share.submit(partial(made.append, at)) for at in (1, 2))
    with anyio.fail_after(5):
        await anyio.to_thread.run_sync(entered.wait)
    whole.drop()
    release.set()
    with anyio.fail_after(5):
        await running
        outcomes = await asyncio.gather(waiting, behind, return_exceptions=True)
    assert ([], [asyncio.CancelledError] * 2) == (made, [type(one) for one in outcomes])
    assert 0 == await share.close(1.0)
    await whole.close(1.0)


async def test_calls_that_hang_in_a_share_are_replaced_from_its_part_of_the_spare_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to that; then it is full, and the other shares are not."""
    for module in ("lane", "share"):
        monkeypatch.setattr(f"workers.engine.{module}.HUNG_S", 0.05)
        monkeypatch.setattr(f"workers.engine.{module}.RELIEF_S", 0.01)
    whole, release = ThreadLane("s", 2, spare=2), threading.Event()
    stuck, free = (Share(whole, 1, spare=1) for _ in range(2))
    with anyio.fail_after(10):
        hung = [stuck.submit(lambda: release.wait(10))]
        assert 7 == await stuck.submit(lambda: 7)
        hung.append(stuck.submit(lambda: release.wait(10)))
        while not stuck.full:
            await anyio.sleep(0.01)
        assert (False, 8) == (free.full, await free.submit(lambda: 8))
        release.set()
        assert [True, True] == await asyncio.gather(*hung)
        assert (False, 9) == (stuck.full, await stuck.submit(lambda: 9))
    await whole.close(1.0)


async def test_a_call_that_waits_in_a_share_or_behind_it_can_be_taken_back() -> None:
    """And what waits behind it goes on."""
    whole, release, made = ThreadLane("s", 1), threading.Event(), list[int]()
    share = Share(whole, 2)
    running = share.submit(lambda: release.wait(10))
    passed_on, waiting, last = (share.submit(partial(made.append, at)) for at in (1, 2, 3))
    with anyio.fail_after(5):
        while not share.withdraw(passed_on):
            await anyio.sleep(0.01)
        assert share.withdraw(waiting)
        assert [False, False] == [share.withdraw(call) for call in (passed_on, waiting)]
        release.set()
        await running
        await last
        assert not share.withdraw(last)
    assert [3] == made
    await whole.close(1.0)
