"""Replays the last hour's events and follows what comes, each once and in order, also while the broker restarts; Ctrl-C ends it.

Run it: `python subscribe.py nats://127.0.0.1:4222`.
"""

import asyncio
import sys
import time
from contextlib import suppress

from orchestrator.client import Client
from orchestrator.event import CommandFailed, Lifecycle, NodeOffline, StreamGap


async def main(server: str) -> None:
    """`every`: not only of one project, but also what belongs to none, as nodes do."""
    async with Client.connect(server, wait=True) as vm:
        async for event in vm.events(every=True, since=time.time() - 3600):
            match event:
                case Lifecycle():
                    print(event.time, event.domainname, event.event, event.detail, flush=True)
                case CommandFailed(error=error) if error is not None:
                    print(event.time, event.domainname, event.verb, "failed:", error.message, flush=True)
                case NodeOffline() | StreamGap():
                    print(event.time, event.node, event.name, event.data, flush=True)


with suppress(KeyboardInterrupt):
    asyncio.run(main(sys.argv[1]))
