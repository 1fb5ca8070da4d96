"""Laws of weather: what it may do to messages on their way, and what never."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import LogConfig, Message, Outgoing, Uncertain
from workers.testing import VirtualLoop, wall_clock

LOG = LogConfig(name="LOG", subjects=("log.>",), republish=("log.>", "push.>"))


class Storm:
    """Weather that a test makes."""

    def __init__(self, latest_s: float, copies: int = 1) -> None:
        self._chance = random.Random(1)
        self._latest_s = latest_s
        self._copies = copies

    def delay_s(self) -> float:
        """Return up to the longest delay."""
        return self._chance.random() * self._latest_s

    def copies(self, message: Message) -> int:
        """Return what was asked for, of pushes."""
        return self._copies if message.subject.startswith("push.") else 1


def virtually(test: Callable[[MemoryBroker, MemoryBus, MemoryBus], Awaitable[None]], storm: Storm) -> None:
    """Run a test in virtual time on a broker with a log, a bus in the storm and one in fair weather."""

    async def main() -> None:
        broker = MemoryBroker(wall_clock())
        rough, fair = MemoryBus(broker, name="rough", clock=wall_clock()), MemoryBus(broker, name="fair", clock=wall_clock())
        rough.link.weather = storm
        async with rough, fair:
            await fair.link.up()
            await rough.link.up()
            await fair.provision([LOG])
            await test(broker, rough, fair)

    anyio.run(main, backend_options={"loop_factory": VirtualLoop})


def test_nothing_overtakes_what_was_sent_before_it() -> None:
    """However late each message is, in both directions."""
    heard: list[bytes] = []

    async def test(_: MemoryBroker, rough: MemoryBus, _fair: MemoryBus) -> None:
        async with rough.listen("push.>", lambda message: heard.append(message.body)):
            for number in range(50):
                await rough.publish("log.a", str(number).encode())
            await anyio.sleep(200)

    virtually(test, Storm(1.0))
    assert [str(number).encode() for number in range(50)] == heard


def test_a_core_message_may_come_never_or_twice_and_an_append_is_answered_all_the_same() -> None:
    """It is stored once; only its push is lost, or doubled."""
    for copies in (0, 2):
        heard: list[bytes] = []

        async def test(_: MemoryBroker, rough: MemoryBus, fair: MemoryBus, heard: list[bytes] = heard) -> None:
            async with rough.listen("push.>", lambda message: heard.append(message.body)):
                sequence = await rough.append(Outgoing("log.a", b"once"))
                await anyio.sleep(1)
            last = await fair.last("LOG", "log.>")
            assert last is not None
            assert sequence == last.sequence

        virtually(test, Storm(0.0, copies))
        assert [b"once"] * copies == heard


def test_what_lingers_arrives_after_its_sender_is_back() -> None:
    """And behind what that sent on its new connection; nobody is told that it was stored."""
    outcome: list[str] = []

    async def test(broker: MemoryBroker, rough: MemoryBus, fair: MemoryBus) -> None:
        async def append() -> None:
            try:
                await rough.append(Outgoing("log.a", b"late"))
            except Uncertain:
                outcome.append("uncertain")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append)
            await anyio.sleep(0.001)
            broker.cut(rough, lingering=True)
            rough.link.weather = Storm(0.0)
            broker.restore(rough)
            await rough.link.up(after=1)
            await rough.append(Outgoing("log.a", b"new"))
        before = await fair.last("LOG", "log.>")
        await anyio.sleep(10)
        after = await fair.last("LOG", "log.>")
        assert before is not None
        assert after is not None
        assert (b"new", b"late") == (before.body, after.body)

    virtually(test, Storm(10.0))
    assert ["uncertain"] == outcome
