"""A worker process whose changing libvirt calls hang for ever: `python -m tests.e2e.hung`.

The pipe that `HUNG_CALLS` names is opened for writing and closed when the first call hangs.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import workers.drivers.libvirt
from orchestrator.protocol.verb import Args
from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.port import Tag


class Hung(LibvirtDriver):
    """A libvirt driver that never returns from a change."""

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:  # noqa: ARG002  the port's signature
        """Tell that a call hangs, and hang."""
        Path(os.environ["HUNG_CALLS"]).write_bytes(b"")
        threading.Event().wait()


def main() -> None:
    """Run a worker as `python -m workers` does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    workers.drivers.libvirt.LibvirtDriver = Hung  # type: ignore[misc]  # what the process's composition root takes
    from workers.process import main as run  # noqa: PLC0415  as the real entry point does

    run()


if __name__ == "__main__":
    main()
