"""`python -m workers`: one worker as a process."""

from __future__ import annotations

import signal


def main() -> None:
    """Run a worker; never returns."""
    # until the event loop takes the signals over, they end the process at once and without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from workers.process import main as run  # noqa: PLC0415  importing takes long enough to be interrupted

    run()


if __name__ == "__main__":
    main()
