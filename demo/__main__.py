"""`python -m demo`: the whole show; exits 0 only if every check held."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

import anyio
import structlog

from demo.fleet import NODES, Fleet, FleetError
from demo.play import Play
from demo.score import Score
from demo.screen import Screen
from demo.sender import Failed
from demo.stage import Stage, StageError, choose
from orchestrator.bus.port import BusError
from orchestrator.client import Client
from orchestrator.protocol.error import WireError

INTERRUPTED = 130


async def _perform(stage: Stage, fleet: Fleet, screen: Screen, score: Score) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(fleet.watch)
        async with Client.connect(fleet.server, wait=True) as client:
            await Play(client, fleet, stage, screen, score).perform()
        group.cancel_scope.cancel()


def _show(stage: Stage, screen: Screen, score: Score) -> None:
    screen.act(f"virtbus up --nodes {len(NODES)} --hypervisor {stage.hypervisor}")
    with Fleet(stage.hypervisor) as fleet:
        try:
            anyio.run(_perform, stage, fleet, screen, score)
        except* (Failed, FleetError, BusError, WireError) as failures:
            score.judge("the show was played to its end", [str(error) for error in _leaves(failures)])
    score.judge("no process and no file is left", fleet.remains())


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """Return the errors themselves, out of the groups that tasks within tasks wrapped them in."""
    return [leaf for error in group.exceptions for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])]


def main() -> int:
    """Run the show and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The main job on real hypervisors, to look at.")
    parser.add_argument("--test-driver", action="store_true", help="use libvirt's test driver, even where QEMU could be used")
    options = parser.parse_args()
    for told in (signal.SIGINT, signal.SIGTERM):  # so that what was started ends too, also where a shell had us ignore it
        signal.signal(told, signal.default_int_handler)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # the screen tells what matters
    screen = Screen()
    score = Score(screen)
    screen.note("virtbus: commands on NATS, hypervisors through libvirt, events streaming back")
    try:
        stage = choose(pretended=options.test_driver)
    except StageError as error:
        screen.note(str(error))
        return 1
    screen.note(f"two nodes on {stage.reason}")
    try:
        _show(stage, screen, score)
    except KeyboardInterrupt:
        screen.note("interrupted; what was started has ended")
        return INTERRUPTED
    score.finale()
    return 0 if score.held else 1


if __name__ == "__main__":
    sys.exit(main())
