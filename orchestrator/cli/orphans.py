"""Reaps QEMU processes that outlived the worker which started them, those that daemonised under it, and whatever else it left.

QEMU leaves the process that starts it. Where process 1 is no real init, as in many containers, nobody reaps it at
once, and libvirt waits a second or two at each end of a guest, and far longer at its first look at QEMU.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.02
_NAME = "qemu-system"

PATIENCE_S = 1.0
"""Seconds after which nobody waits any more for what has ended: a killed worker leaves what libvirt was just starting, too."""


@functools.cache
def adopt() -> None:
    """Take in every orphan among this process's descendants from now on, and reap those that are QEMU."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_reap, name="orphans", daemon=True).start()


def _reap() -> None:
    """Reap for as long as the process lives: QEMU at once, and what has a parent here only if that does not come for it.

    The system names one that has ended, always the same until it is reaped, so none may be left standing before the others.
    """
    first, since = 0, 0.0
    while True:
        pid = _ended()
        if pid != first:
            first, since = pid, time.monotonic()
        if pid and (_is_qemu(pid) or time.monotonic() - since > PATIENCE_S):
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        else:
            time.sleep(_PAUSE_S)


def _ended() -> int:
    """Return a child that has ended and is not reaped, 0 if there is none."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return 0
    return 0 if ended is None else ended.si_pid


def _is_qemu(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith(_NAME)
    except OSError:
        return False  # reaped meanwhile
