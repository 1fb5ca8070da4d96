"""Commands and their answers: creates a domain, pauses it, lets it run on, removes it.

Run it: `python publish.py nats://127.0.0.1:4222`.
"""

import asyncio
import sys
import uuid

from orchestrator.client import Client

XML = "<domain type='test'><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"


async def main(server: str) -> None:
    """Each call returns once its effect was seen, or raises the error that the command ended with."""
    async with Client.connect(server) as vm:
        order = uuid.uuid4().hex  # who orders keeps it: sent again under it, after a crash say, a command has no second effect
        made = await vm.create_xml("web1", XML, id=order, timeout=30)
        again = await vm.create_xml("web1", XML, id=order, timeout=30)
        print("created", "once" if again == made else "twice", "on", made.node)
        for _ in range(2):
            print("paused:", (await vm.suspend("web1")).changed)
        await vm.resume("web1")
        await vm.wait("web1", state="running", timeout=10)
        await vm.destroy("web1")
        await vm.undefine("web1")


asyncio.run(main(sys.argv[1]))
