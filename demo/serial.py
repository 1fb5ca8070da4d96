"""A guest's serial console, read from the file into which its hypervisor writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio

_PAUSE_S = 0.05


async def follow(path: Path, take: Callable[[str], None]) -> None:
    """Hand each whole line of the file to `take`, for ever; the file may come into being later.

    A file tells nobody that it grew, so it is looked at every 50 ms.
    """
    read, rest = 0, ""
    while True:
        chunk = _behind(path, read)
        read += len(chunk)
        *whole, rest = (rest + chunk.decode(errors="replace")).split("\n")
        for line in whole:
            take(line.strip())
        await anyio.sleep(_PAUSE_S)


def _behind(path: Path, read: int) -> bytes:
    """Return what stands in the file behind its first `read` bytes."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(read)
        return file.read()
