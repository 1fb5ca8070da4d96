"""Many seeds, or one again. Exit code 1 where a law was broken; how to see it again is printed with it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

from tests.simulation.plan import plan
from tests.simulation.shrink import shrunk, without
from tests.simulation.world import Failure, simulate

TOLD = 60
"""Lines of a failing seed's trace that are printed."""

MOST = 20
"""Failing seeds after which a long run gives up."""


def main() -> int:
    """Do what the command line says."""
    arguments = _parsed()
    if arguments.seed is not None:
        return _one(arguments)
    began, ran, failed = time.monotonic(), 0, 0
    for seed in _seeds(arguments.seeds, arguments.seconds):
        failure, _ = simulate(plan(seed))
        ran += 1
        if failure is not None:
            failed += 1
            _tell(failure, shrink=not arguments.quick)
        if ran % 500 == 0:
            print(f"{ran} seeds, up to {seed}, {failed} failed, {time.monotonic() - began:.0f} s", flush=True)
        if failed >= MOST:
            break
    print(f"{ran} seeds, {failed} failed, {time.monotonic() - began:.1f} s")
    return int(failed > 0)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="1:", help="from A to before B, as A:B; without B until --seconds are over")
    parser.add_argument("--seconds", type=float, help="begin no further seed after so many seconds")
    parser.add_argument("--quick", action="store_true", help="do not look for the faults that a failing seed needs")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--without", default="", help="with --seed: places of faults to leave out, as 0,2")
    parser.add_argument("--alone", action="store_true", help="with --seed: nobody meddles")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    return parser.parse_args()


def _seeds(given: str, seconds: float | None) -> Iterator[int]:
    first, _, end = given.partition(":")
    last = int(end) if end else None
    until = time.monotonic() + (seconds if seconds is not None else 60.0 if last is None else float("inf"))
    seed = int(first)
    while (last is None or seed < last) and time.monotonic() < until:
        yield seed
        seed += 1


def _one(arguments: argparse.Namespace) -> int:
    left_out = frozenset(int(place) for place in arguments.without.split(",") if place)
    failure, trace = simulate(without(plan(arguments.seed), faults=left_out, meddling=not arguments.alone), whole=arguments.trace)
    if arguments.trace:
        print("\n".join(trace))
    if failure is None:
        print(f"seed {arguments.seed}: no law was broken")
        return 0
    print(told(failure, trace=not arguments.trace))
    return 1


def _tell(failure: Failure, *, shrink: bool) -> None:
    print(told(failure), flush=True)
    if shrink:
        left_out, meddling, smaller = shrunk(plan(failure.seed))
        places, alone = ",".join(map(str, sorted(left_out))), "" if meddling else " --alone"
        print(f"fails with fewer faults too: python -m tests.simulation --seed {failure.seed} --without '{places}'{alone} --trace")
        print(f"  {smaller.reason if smaller is not None else ''}", flush=True)


def told(failure: Failure, *, trace: bool = True) -> str:
    """Return what there is to say of a failure: why, after what, under which faults, and how to see it again."""
    faults = [
        f"  fault {place} at {fault.at:.2f} s: {fault.kind} of {fault.target} for {fault.seconds:.2f} s"
        for place, fault in enumerate(failure.faults)
    ]
    last = [f"  {line}" for line in failure.trace[-TOLD:]] if trace else []
    again = f"again: python -m tests.simulation --seed {failure.seed} --trace"
    return "\n".join((f"seed {failure.seed}: {failure.reason}", *faults, *last, again))


if __name__ == "__main__":
    sys.exit(main())
