"""Where our log lines go. Names no other room; every room that logs may name it.

To structlog as the program has configured it; else to the standard library's `logging`, under `virtbus`, as from any library:
a program that embeds us finds nothing on its standard output, and only warnings on standard error, until it asks for more.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog

_PLAIN = (
    structlog.stdlib.filter_by_level,
    structlog.processors.format_exc_info,
    structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
)


def get_logger() -> Any:
    """Return a logger; where its lines go is decided as each is written."""
    return structlog.wrap_logger(None, wrapper_class=cast("type[structlog.typing.BindableLogger]", _chosen))


def to_stderr(*, verbose: bool) -> None:
    """Have a process of ours log to standard error: lines for people on a terminal, JSON lines elsewhere."""
    shown = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _chosen(logger: Any, processors: Any, context: Any) -> Any:
    if structlog.is_configured():
        return structlog.get_config()["wrapper_class"](logger, processors=processors, context=context)
    return structlog.stdlib.BoundLogger(logging.getLogger("virtbus"), processors=_PLAIN, context=context)
