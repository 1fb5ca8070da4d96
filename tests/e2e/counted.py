"""A worker process whose libvirt driver writes down each changing call, before it makes it: `python -m tests.e2e.counted`.

The file that `COUNTED_CALLS` names gets one line a call, appended in one write, so it survives kill -9.
"""

from __future__ import annotations

import os
import signal

import workers.drivers.libvirt
from orchestrator.protocol.verb import Args
from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.port import Tag


class Counted(LibvirtDriver):
    """A libvirt driver that keeps count."""

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Write the call down, then make it."""
        descriptor = os.open(os.environ["COUNTED_CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{verb} {uuid}\n".encode())
        finally:
            os.close(descriptor)
        super().run(verb, uuid, args, tag)


def main() -> None:
    """Run a worker as `python -m workers` does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    workers.drivers.libvirt.LibvirtDriver = Counted  # type: ignore[misc]  # what the process's composition root takes
    from workers.process import main as run  # noqa: PLC0415  # as the real entry point does

    run()


if __name__ == "__main__":
    main()
