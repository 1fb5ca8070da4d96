"""`python -m tests.torture --seconds N --seed S`: torture an installation, then prove what it kept. 0: all laws; 1: some broken.

It runs in namespaces of its own (processes, mounts, network) that end with it, however that comes about: nothing is left
on the machine but the folder with the evidence, and that only where a law was broken or the run was to be kept.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio

from orchestrator.bus.embedded import tied
from tests.hypervisors import unavailable
from tests.torture import network
from tests.torture.plan import Plan, draw
from tests.torture.run import dump, torture
from tests.torture.site import Site
from tests.torture.verdict import Evidence, judge

KEPT, BROKEN, CANNOT = 0, 1, 2
NODES = {
    "test": {"n1": "test", "n2": "test"},
    "qemu": {"q1": "qemu", "q2": "qemu"},
    "both": {"n1": "test", "n2": "test", "q1": "qemu"},
}
COORDINATORS = ("c1", "c2")
_WITHIN = "TORTURE_WITHIN"
_SHOWN = 5


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long commands and faults come (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draw the plan from this one (default: chosen, and printed)")
    parser.add_argument("--on", choices=NODES, default="both", help="libvirt's test driver behind libvirtd, embedded QEMU, or both")
    parser.add_argument("--rate", type=float, default=25.0, help="commands a second (default: %(default)s)")
    parser.add_argument("--domains", type=int, default=12, help="on each node of the test driver (default: %(default)s)")
    parser.add_argument("--evidence", type=Path, default=Path(".torture"), help="folder beneath which evidence is left")
    parser.add_argument("--keep", action="store_true", help="leave the evidence also where all laws were kept")
    return parser.parse_args()


def main() -> None:
    """Go into namespaces, run, judge, print one line."""
    options = _options()
    reason = unavailable() or network.missing()
    if reason is not None:
        sys.stderr.write(f"cannot torture: {reason}\n")
        sys.exit(CANNOT)
    if _WITHIN not in os.environ:
        sys.exit(_within())
    options.seed = options.seed or random.SystemRandom().randrange(1, 10**6)
    folder = options.evidence / f"{options.seed}-{time.strftime('%H%M%S')}"
    folder.mkdir(parents=True)
    sys.stderr.write(f"seed {options.seed}, evidence in {folder}\n")
    nodes = NODES[options.on]
    plan = draw(options.seed, options.seconds, nodes, COORDINATORS, rate=options.rate, domains=options.domains)
    dump(folder, plan)
    sys.exit(anyio.run(_run, plan, nodes, folder.resolve(), options.keep))


def _within() -> int:
    """Run the same in namespaces that end with it, and it with us; Ctrl-C is for it alone, and not for what it started."""
    unshare = shutil.which("unshare")
    assert unshare is not None
    flags = ("-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
    words = ["sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "-m", "tests.torture", *sys.argv[1:]]
    environment = {**os.environ, _WITHIN: "1", "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    process = subprocess.Popen(tied([unshare, *flags, *words], signal.SIGKILL), env=environment, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _pass_on(process.pid, number))
    return process.wait()


def _pass_on(unshare: int, number: int) -> None:
    """Send a signal to the one child of `unshare`."""
    for child in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split():
        os.kill(int(child), number)


async def _run(plan: Plan, nodes: Mapping[str, str], folder: Path, keep: bool) -> int:
    # Held open to the end: a second Ctrl-C must not come between us and the cleaning up.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        return await _unless_interrupted(signals, plan, nodes, folder, keep)


async def _unless_interrupted(
    signals: AsyncIterator[signal.Signals], plan: Plan, nodes: Mapping[str, str], folder: Path, keep: bool
) -> int:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_interrupted, signals, tasks.cancel_scope)
        code = await _judged(plan, nodes, folder, keep)
        tasks.cancel_scope.cancel()
        return code
    sys.stderr.write(f"interrupted; what was written until then is in {folder}\n")
    return CANNOT


async def _until_interrupted(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _judged(plan: Plan, nodes: Mapping[str, str], folder: Path, keep: bool) -> int:
    began = time.monotonic()
    site = Site(folder, nodes, COORDINATORS)
    with (folder / "timeline.txt").open("w", buffering=1) as timeline:
        evidence = await torture(plan, site, partial(print, file=timeline))
    violations = judge(evidence)
    broken = any(violations.values())
    _write(folder, violations)
    told = _summary(evidence, site.ends, violations, time.monotonic() - began)
    (folder / "summary.txt").write_text(f"{told}\n")
    sys.stdout.write(f"{told}{f'; evidence in {folder}' if broken else ''}\n")
    if not broken and not keep:
        shutil.rmtree(folder)
    return BROKEN if broken else KEPT


def _write(folder: Path, violations: Mapping[str, Sequence[str]]) -> None:
    lines = [f"{law}: {violation}" for law, found in violations.items() for violation in found]
    (folder / "violations.txt").write_text("\n".join(lines))
    for law, found in violations.items():
        for violation in found[:_SHOWN]:
            sys.stderr.write(f"{law}: {violation}\n")


def _summary(evidence: Evidence, ended: Counter[str], violations: Mapping[str, Sequence[str]], took_s: float) -> str:
    plan = evidence.plan
    faults = Counter(deed.kind for deed in plan.faults)
    meddled = Counter(deed.kind for deed in plan.meddling)
    ids = {send.id for send in plan.sends}
    figures = [
        f"seed {plan.seed}: {len(ids)} commands in {len(plan.sends)} messages to {len(plan.domains)} domains",
        f"{sum(faults.values())} faults ({', '.join(f'{kind} {count}' for kind, count in sorted(faults.items()))})",
        f"{sum(meddled.values())} changes behind our back",
        f"{sum(ended.values())} restarts",
        f"{len(evidence.evt)} events",
        *(f"{law} {len(found)}" for law, found in violations.items()),
        f"{took_s:.0f} s",
    ]
    return ", ".join(figures)


if __name__ == "__main__":
    main()
