"""Reaps QEMU processes that outlived the worker which started them, and those that daemonised under it.

QEMU leaves the process that starts it. Where process 1 is no real init, as in many containers, nobody reaps it at
once, and libvirt waits a second or two at each end of a guest, and far longer at its first look at QEMU.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.02
_NAME = "qemu-system"


@functools.cache
def adopt() -> None:
    """Take in every orphan among this process's descendants from now on, and reap those that are QEMU."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_reap, name="orphans", daemon=True).start()


def _reap() -> None:
    """Reap for as long as the process lives; what else ends has a parent here who waits for it."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            ended = None
        if ended is not None and _is_qemu(ended.si_pid):
            os.waitpid(ended.si_pid, os.WNOHANG)
        else:
            time.sleep(_PAUSE_S)


def _is_qemu(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith(_NAME)
    except OSError:
        return False  # reaped meanwhile
