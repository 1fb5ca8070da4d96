"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import structlog


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start, also where a shell started us in the background and took it from us."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Let no test inherit how another one, through the command line, has set up logging."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on anyio's asyncio backend, the only one that the bus supports."""
    return "asyncio"
