"""What each way writes into the broker's logs a command: counted, so that floor and ours are seen to do the same."""

from __future__ import annotations

import anyio
import msgspec
import nats
from nats.js import JetStreamContext

from tests.bench import floor
from tests.bench.rows import Row

SECONDS = 0.1
SETTLE_S = 0.05
"""A command is over when its result is here; this long after it, nothing of it is on its way any more."""


class Writes(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that one command leaves in each log."""

    name: str
    logs: dict[str, float]

    def text(self) -> str:
        """Return it for people."""
        return "writes a command: " + ", ".join(f"{log} {count:g}" for log, count in self.logs.items())


async def counted(row: Row, server: str) -> Writes:
    """Send some commands one after another, and count what they leave."""
    prefix = floor.PREFIX if row.name.startswith("floor") else "virt"
    logs = {name: name.format(prefix.upper()) for name in ("{}_CMD", "{}_RUN", "{}_EVT")} | {"KV": f"KV_{prefix}_domains"}
    broker = await nats.connect(server)
    try:
        before = await _ends(broker.jetstream(), logs)
        done = len(await row.probe.singly(SECONDS))
        await anyio.sleep(SETTLE_S)
        after = await _ends(broker.jetstream(), logs)
    finally:
        await broker.close()
    return Writes(name=row.name, logs={name.removeprefix("{}_"): round((after[name] - before[name]) / done, 2) for name in logs})


async def _ends(log: JetStreamContext, logs: dict[str, str]) -> dict[str, int]:
    return {name: (await log.stream_info(stream)).state.last_seq for name, stream in logs.items()}
