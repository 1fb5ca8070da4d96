"""Ends what has lost its parent: QEMU leaves the worker that started it, and a first process that reaps late makes libvirt wait.

Where process 1 is no real init, as in many containers, libvirt would wait a second or two at each end of a
guest, and longer at its first look at QEMU.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.02


def adopt(own: int) -> None:
    """Take in every orphan among this process's descendants from now on; `own` is the one child that has a parent who waits for it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_reap, args=(own,), name="orphans", daemon=True).start()


def _reap(own: int) -> None:
    """Reap until there is no child left."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == own:
            time.sleep(_PAUSE_S)  # its parent will take it
        else:
            os.waitpid(ended.si_pid, os.WNOHANG)
