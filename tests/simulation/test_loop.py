"""The laws of parts: one that is paused stands still, and one that is doomed dies in the midst of its own work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context

import anyio

from tests.simulation.loop import PART, PartedLoop


def run(program: Callable[[PartedLoop], Awaitable[None]]) -> None:
    """Run a program on such a loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PartedLoop)
        await program(loop)

    anyio.run(main, backend_options={"loop_factory": PartedLoop})


def started(part: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Start work as that of a part."""

    async def worked() -> None:
        await work()

    context = copy_context()
    context.run(PART.set, part)
    return asyncio.get_running_loop().create_task(worked(), context=context)


def test_a_paused_part_stands_still_and_goes_on_where_it_was() -> None:
    """Others run meanwhile; what came due happens when it is resumed, and then time goes on for it as for all."""
    steps: list[tuple[str, float]] = []

    async def program(loop: PartedLoop) -> None:
        async def tick(name: str) -> None:
            for _ in range(3):
                await asyncio.sleep(1.0)
                steps.append((name, loop.time()))

        tasks = [started(name, lambda name=name: tick(name)) for name in ("a", "b")]  # type: ignore[misc]
        await asyncio.sleep(0.5)
        loop.pause("a")
        await asyncio.sleep(9.5)
        loop.resume("a")
        await asyncio.gather(*tasks)

    run(program)
    assert [("b", 1.0), ("b", 2.0), ("b", 3.0), ("a", 10.0), ("a", 11.0), ("a", 12.0)] == steps


def test_what_a_paused_part_has_cancelled_before_does_not_happen() -> None:
    """A timer that came due while it stood still, and that an earlier one takes back."""
    rung: list[str] = []

    async def program(loop: PartedLoop) -> None:
        async def work() -> None:
            timer = loop.call_later(2.0, rung.append, "late")
            loop.call_later(1.0, timer.cancel)
            await asyncio.sleep(3.0)

        task = started("a", work)
        await asyncio.sleep(0.5)
        loop.pause("a")
        await asyncio.sleep(5.0)
        loop.resume("a")
        await task

    run(program)
    assert [] == rung


def test_a_doomed_part_dies_at_the_step_that_was_chosen() -> None:
    """Counted in its own steps, whatever others do."""
    done: list[int] = []

    async def program(loop: PartedLoop) -> None:
        alive = True

        def die() -> None:
            nonlocal alive
            alive = False

        async def work() -> None:
            for number in range(10):
                await asyncio.sleep(0)
                if alive:
                    done.append(number)

        loop.doom("a", 4, die)
        tasks = [started(part, work) for part in ("a", "b")]
        loop.spare("b")
        await asyncio.gather(*tasks)

    run(program)
    assert 0 < len([number for number in done if number < 4]) < 20
    assert 9 not in done
