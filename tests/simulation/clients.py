"""Who sends commands: processes that ask, repeat what may be lost, and die in the middle of it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from orchestrator.bus.memory import MemoryBroker, MemoryBus
from orchestrator.bus.port import Full, NoResponder, Outgoing, Unavailable, Uncertain
from tests.simulation.plan import Sending
from tests.simulation.stage import ChanceWeather
from tests.simulation.witness import SUBJECTS, Witness

PAUSE_S = 0.3
REPEAT_S = 3.0
MARGIN_S = 5.0
STORE_S = 8.0


class Sender:
    """One client. What it had under way when it was killed it has forgotten."""

    def __init__(self, name: str, broker: MemoryBroker, clock: Callable[[], float], weather: ChanceWeather, witness: Witness) -> None:
        self.name = name
        self.weather = weather
        self.parted = False
        self._broker = broker
        self._clock = clock
        self._witness = witness
        self._scope = anyio.CancelScope()
        self._tasks: TaskGroup | None = None
        self.bus = self._connection()

    async def live(self) -> None:
        """Live, again and again after each death."""
        while True:
            self.bus = self._connection()
            with anyio.CancelScope() as self._scope:
                async with self.bus, anyio.create_task_group() as self._tasks:
                    await anyio.sleep_forever()
            self._tasks = None
            await anyio.sleep(PAUSE_S)

    def die(self) -> None:
        """End as kill -9 does."""
        self._broker.cut(self.bus)
        self._scope.cancel()

    def send(self, sending: Sending) -> None:
        """Send a message, in a task of its own; a dead client sends nothing."""
        if self._tasks is not None and not self._scope.cancel_called:
            self._tasks.start_soon(self.deliver, sending)

    async def deliver(self, sending: Sending) -> None:
        """Send a message until it is stored or answered, or patience is at an end."""
        self._witness.note(f"{self.name} sends {sending.way} {sending.project} {sending.domain} {sending.verb} {sending.id}")
        until = anyio.current_time() + (sending.patience_s + MARGIN_S if sending.way == "api" else STORE_S)
        while anyio.current_time() < until:
            try:
                await self._once(sending, until)
            except Full:
                return
            except (Uncertain, Unavailable, NoResponder):
                await anyio.sleep(PAUSE_S)
            else:
                return

    async def _once(self, sending: Sending, until: float) -> None:
        if sending.way == "api":
            subject = SUBJECTS.api(sending.project, sending.domain, sending.verb)
            wait_s = min(until - anyio.current_time(), REPEAT_S + sending.patience_s / 4)
            self._witness.answered(sending, (await self.bus.request(subject, sending.body, timeout_s=wait_s)).body)
            return
        subject = SUBJECTS.cmd(sending.project, sending.domain, sending.verb)
        if sending.way == "run":
            subject = SUBJECTS.run(sending.node, sending.project, sending.domain, sending.verb)
        await self.bus.append(Outgoing(subject, sending.body))

    def _connection(self) -> MemoryBus:
        bus = MemoryBus(self._broker, name=self.name, clock=self._clock)
        bus.link.weather = self.weather
        if self.parted:
            self._broker.cut(bus)
        return bus


