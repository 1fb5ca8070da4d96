"""Libvirt's event loop: one a process, in a thread of its own, begun before the first connection is opened.

Libvirt knows no way to take an event implementation back, so the thread ends with the process and not before, whoever opened the
first connection. It is a daemon called `libvirt-events`, and costs nothing while nothing happens. With it, libvirt's errors are
no longer printed to stderr, since each comes back as an exception. Where the program runs an implementation of its own, neither
happens: all that is asked of that one is to dispatch handles and timers for as long as a driver is open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from orchestrator.log import get_logger

_log = get_logger()
_RETRY_S = 0.1


class EventLoop:
    """The process's one event loop; libvirt allows no second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._provided = False

    def runs_elsewhere(self) -> None:
        """Take that the host program registered an event implementation and runs it; call before the first `open`."""
        with self._lock:
            self._provided = True

    def ensure(self) -> None:
        """See that an event loop runs; do nothing if one does."""
        with self._lock:
            if self._provided:
                return
            # Every error comes back as an exception; libvirt would print it to stderr as well.
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=_run, name="libvirt-events", daemon=True).start()
            self._provided = True

    def soon(self, call: Callable[[], None]) -> None:
        """Run `call` on the event loop, after what already waits there."""

        def fire(timer: int, _opaque: Any) -> None:
            libvirt.virEventRemoveTimeout(timer)
            call()

        libvirt.virEventAddTimeout(0, fire, None)


def _run() -> None:
    """Dispatch for as long as the process lives: a loop that ended silently would end all events with it."""
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            _log.exception("libvirt.eventloop.failed")
            time.sleep(_RETRY_S)


loop = EventLoop()


def events_run_elsewhere() -> None:
    """Declare that this program has registered an event implementation and runs it; call before the first `open`, once a process."""
    loop.runs_elsewhere()
