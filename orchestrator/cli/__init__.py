"""The command line `virtbus`. What is slow to import is imported where it is used, so that help comes at once."""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command line with the arguments of this process; return the exit code: 0 done, 1 no, 2 usage or cannot connect."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C ends the process at once, also amid imports, with nothing said; what must leave in order takes the signal over
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from orchestrator.cli.entry import run  # noqa: PLC0415  the package is also imported for its parts

    return run()
