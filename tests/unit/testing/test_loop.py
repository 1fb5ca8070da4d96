"""The laws of virtual time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest

from workers.testing import Deadlock, VirtualLoop, wall_clock
from workers.testing.loop import EPOCH_S

T = TypeVar("T")
DAY_S = 24 * 3600.0


def run(program: Callable[[], Awaitable[T]]) -> T:
    """Run a program in virtual time."""
    return anyio.run(program, backend_options={"loop_factory": VirtualLoop})


def virtual_loop() -> VirtualLoop:
    """Return the loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def test_a_day_of_waiting_passes_at_once() -> None:
    """It costs nothing, and has passed on both clocks."""

    async def program() -> tuple[float, float]:
        await anyio.sleep(DAY_S)
        return anyio.current_time(), wall_clock()()

    began = time.monotonic()
    assert (DAY_S, EPOCH_S + DAY_S) == run(program)
    assert time.monotonic() - began < 1.0


def test_plain_asyncio_has_it_too() -> None:
    """A loop factory is all that it takes."""

    async def program() -> float:
        await asyncio.sleep(DAY_S)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert DAY_S == runner.run(program())


def test_who_waits_less_wakes_first() -> None:
    """Whatever the order in which they began to wait; a timeout comes to its time too."""
    woken: list[float] = []

    async def wait(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(anyio.current_time())

    async def program() -> None:
        with anyio.move_on_after(4.0):
            async with anyio.create_task_group() as tasks:
                for seconds in (3.0, 1.0, 2.0, 5.0):
                    tasks.start_soon(wait, seconds)
        woken.append(anyio.current_time())

    run(program)
    assert [1.0, 2.0, 3.0, 4.0] == woken


def test_another_loop_keeps_real_time() -> None:
    """The wall clock of an ordinary loop is the machine's."""

    async def program() -> Callable[[], float]:
        return wall_clock()

    assert time.time is anyio.run(program)


def test_a_deadlock_is_told() -> None:
    """With every task that waits, and the line on which it does."""

    async def forgotten() -> None:
        await anyio.Event().wait()

    async def program() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forgotten)

    with pytest.raises(Deadlock, match=rf"{__file__}:\d+ in .*forgotten") as raised:
        run(program)
    assert 3 == len(str(raised.value).splitlines())


def test_a_deadlock_under_a_guard_is_raised_there_and_leaves_all_in_order() -> None:
    """What was entered is left, what was started is ended, and the program goes on."""
    left: list[str] = []

    async def wait(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.append(name)

    async def guarded() -> None:
        with virtual_loop().guard():
            async with anyio.create_task_group() as tasks:
                for name in ("a", "b", "c"):
                    tasks.start_soon(wait, name)

    async def program() -> float:
        with pytest.raises(Deadlock):
            await guarded()
        await anyio.sleep(1.0)
        return anyio.current_time()

    assert 1.0 == run(program)
    assert ["a", "b", "c"] == sorted(left)


def test_a_guard_lets_other_cancellations_pass() -> None:
    """It is no deadlock when somebody cancels."""

    async def program() -> bool:
        with anyio.move_on_after(1.0) as scope, virtual_loop().guard():
            await anyio.sleep_forever()
        return scope.cancelled_caught

    assert run(program)


def test_no_time_passes_while_a_thread_works() -> None:
    """A timer does not overtake the work of `asyncio.to_thread`."""
    timer_set = threading.Event()

    async def program() -> tuple[bool, float]:
        with anyio.move_on_after(60.0) as scope:
            work = asyncio.ensure_future(asyncio.to_thread(timer_set.wait, 10.0))
            asyncio.get_running_loop().call_soon(timer_set.set)
            assert await work
        return scope.cancelled_caught, anyio.current_time()

    assert (False, 0.0) == run(program)


def test_what_a_thread_will_wake_is_no_deadlock() -> None:
    """Also where the loop does not know the thread."""
    assert "done" == run(lambda: anyio.to_thread.run_sync(lambda: "done"))


def test_what_a_socket_will_wake_is_no_deadlock() -> None:
    """Real input and output goes on beside virtual time."""

    async def program() -> bytes:
        served = asyncio.Event()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()
            await writer.wait_closed()
            served.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            said = await reader.read()
            writer.close()
            await writer.wait_closed()
            await served.wait()
        return said

    assert b"hello" == run(program)


def test_a_set_of_tasks_has_one_order() -> None:
    """That in which they were made, whatever lies where in memory: or nothing could be repeated."""

    async def program() -> bool:
        tasks = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(100)]
        await asyncio.wait(tasks)
        hashes = [hash(task) for task in tasks]
        return hashes == list(range(hashes[0], hashes[0] + 100)) and len(set(tasks)) == 100

    assert run(program)
