"""What a verb looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.protocol.verb import Args
from workers.drivers.port import Tag

Run = Callable[[Any, str, Args, Tag], None]
"""(connection, uuid, args, tag)."""


def on_domain(call: Callable[[Any], object]) -> Run:
    """Return the verb that looks the domain up and does `call` with it."""

    def run(connection: Any, uuid: str, _args: Args, _tag: Tag) -> None:
        call(connection.lookupByUUIDString(uuid))

    return run
