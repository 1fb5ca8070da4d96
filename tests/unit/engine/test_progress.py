"""Where a leader says it has come to."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.progress import MANY, Position, Progress

pytestmark = pytest.mark.anyio

START = Position(10, 100, 1000)


def fresh(done: dict[int, str] | None = None, run: int = 100, evt: int = 1000) -> Progress:
    """Return a term that begins at command 11."""
    return Progress(START, done or {}, run, evt)


def test_the_position_stays_before_the_oldest_unfinished_command() -> None:
    """And what is known of the other logs stays as it was when that began."""
    progress = fresh()
    progress.begin(11)
    progress.note(101, 1001)
    progress.begin(12)
    progress.finish(12)
    assert START == progress.position
    progress.finish(11)
    assert Position(12, 101, 1001) == progress.position


def test_finishing_twice_is_finishing_once() -> None:
    """A command may be found safe in more than one way."""
    progress = fresh()
    progress.begin(11)
    progress.finish(11)
    progress.finish(11)
    assert 11 == progress.position.cmd


def test_what_the_term_before_finished_is_known_by_number_and_id() -> None:
    """A number that came again with another id is another command."""
    progress = fresh({11: "k1", 12: "k2", 13: "m-cmd-13"})
    assert [True, False, True, False] == [
        progress.is_done(11, "k1", "m-cmd-11"),
        progress.is_done(12, "other", "m-cmd-12"),
        progress.is_done(13, "k3", "m-cmd-13"),
        progress.is_done(14, "k4", "m-cmd-14"),
    ]


def test_the_ends_of_the_logs_count_only_behind_what_the_term_before_did() -> None:
    """Its copies lie anywhere between, and the next leader must find them too."""
    progress = fresh({12: "k2"}, run=150, evt=1500)
    progress.begin(11)
    progress.skip(12)
    assert START == progress.position
    progress.finish(11)
    assert Position(12, 150, 1500) == progress.position


async def test_many_finished_commands_are_worth_storing_before_time() -> None:
    """And are counted anew after that."""
    progress = fresh()
    for cmd in range(11, 11 + MANY):
        progress.begin(cmd)
        progress.finish(cmd)
    with anyio.fail_after(1):
        await progress.many()
    with anyio.move_on_after(0.01) as waiting:
        await progress.many()
    assert waiting.cancelled_caught


@given(st.lists(st.sampled_from(["begin", "finish oldest", "finish newest", "others", "store"]), max_size=60), st.data())
def test_a_successor_finds_whatever_was_made_of_commands_that_are_not_covered(steps: list[str], data: st.DataObject) -> None:
    """For each position stored: commands up to it are finished; what was made of later ones lies above it in its log.

    Through three terms, each of which ends anywhere.
    """
    run, made, finished = 100, dict[int, int](), set[int]()
    stored = Position(10, run, 0)
    for _ in range(3):
        above = {cmd: str(cmd) for cmd, place in made.items() if place > stored.run and cmd > stored.cmd}
        progress = Progress(stored, above, run, 0)
        cmd, unfinished = stored.cmd, list[int]()
        for step in data.draw(st.permutations(steps)):
            if step == "begin":
                cmd += 1
                if progress.is_done(cmd, str(cmd)):
                    progress.skip(cmd)
                    continue
                assert cmd not in made, "nothing is made twice"
                progress.note(run, 0)
                progress.begin(cmd)
                unfinished.append(cmd)
            elif step.startswith("finish") and unfinished:
                which = unfinished.pop(0 if step == "finish oldest" else -1)
                run += 1
                made[which] = run
                finished.add(which)
                progress.finish(which)
            elif step == "others":
                run += 1
                progress.note(run, 0)
            elif step == "store":
                stored = progress.position
            assert all(each in finished for each in range(11, progress.position.cmd + 1))
            assert all(place > progress.position.run for each, place in made.items() if each > progress.position.cmd)
