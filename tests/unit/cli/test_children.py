"""Child processes: ready when they say so, explained when they fail, and gone when they shall be."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from orchestrator.bus.port import Unavailable
from orchestrator.cli.children import Child

pytestmark = pytest.mark.anyio

SERVE = "import time; print('part ready: all is well', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
FAIL = "import sys; sys.exit('first line\\nthe disk is full')"
OWNER = """
import anyio, sys
from pathlib import Path
from orchestrator.cli.children import Child

async def main():
    child = Child("part", ["-c", sys.argv[1]], {}, Path(sys.argv[2]))
    await child.start()
    print(child.pid, flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


def child(code: str, tmp_path: Path) -> Child:
    """Return a child that runs `code`."""
    return Child("part", ["-c", code], {"VIRTBUS_TEST": "1"}, tmp_path / "part.log")


def gone(process: int, within_s: float = 5.0) -> bool:
    """Tell whether a process, by its pidfd, has ended or does so in time; closes the pidfd."""
    ended, _, _ = select.select([process], [], [], within_s)
    os.close(process)
    return bool(ended)


async def test_a_child_is_ready_when_it_says_so(tmp_path: Path) -> None:
    """`start` returns what it said; its process runs, in a session of its own."""
    part = child(SERVE, tmp_path)
    try:
        assert await part.start() == "all is well"
        assert os.getsid(part.pid) == part.pid
    finally:
        await part.stop(1.0)
    assert part.pid == 0


async def test_a_child_that_fails_is_explained_by_its_last_words(tmp_path: Path) -> None:
    """The last line of its log is the sentence for people."""
    part = child(FAIL, tmp_path)
    with pytest.raises(Unavailable, match=r"^part did not start: the disk is full$"):
        await part.start()
    assert part.pid == 0


async def test_a_child_that_was_killed_has_ended_and_can_start_again(tmp_path: Path) -> None:
    """`ended` is what a supervisor waits for."""
    part = child(SERVE, tmp_path)
    await part.start()
    first = part.pid
    os.kill(first, signal.SIGKILL)
    await part.ended()
    await part.start()
    assert part.pid != first
    await part.stop(1.0)


async def test_a_child_that_will_not_go_is_killed(tmp_path: Path) -> None:
    """Ending takes no longer than it may."""
    part = child(STUBBORN, tmp_path)
    await part.start()
    process = os.pidfd_open(part.pid)
    with anyio.fail_after(5):
        await part.stop(0.05)
    assert gone(process, 0.0)


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C may come while a part is not ready yet."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    part = child(f"import time; open({str(begun)!r}, 'w').close(); time.sleep(60)", tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(part.start)
        await anyio.to_thread.run_sync(begun.read_bytes)
        process = os.pidfd_open(part.pid)
        tasks.cancel_scope.cancel()
    assert gone(process, 0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_do_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    """The kernel ends them."""
    command = [sys.executable, "-c", OWNER, SERVE, str(tmp_path / "part.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        process = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()
    assert gone(process)
