"""One task a domain: its events and its commands, one at a time, in order.

Different domains run in parallel. A domain's events go before its queued commands; those that arrive while a command
runs are told with it as their cause, before its terminal event. A task that had nothing to do for a while ends.
A command that waits ends at its deadline, however long what is before it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import anyio
from anyio.abc import TaskGroup, TaskStatus

from orchestrator.protocol.error import DeadlineExceeded
from workers.drivers.port import Happening
from workers.engine.cancels import Stopping
from workers.engine.execution import Execution, Surroundings
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.ledger import failed
from workers.engine.looks import Looks
from workers.engine.notice import Notice, Notices
from workers.engine.order import Order
from workers.engine.outbox import Outbox
from workers.engine.queue import DomainQueue
from workers.journal.port import Entry

LINGER_S = 5.0
"""Seconds between two looks for domains whose tasks have nothing to do, or whose running instance bears no incarnation."""


class Runner:
    """Runs the domains of one node."""

    def __init__(self, inventory: Inventory, outbox: Outbox, looks: Looks) -> None:
        self.around: Surroundings | None = None
        self._inventory = inventory
        self._outbox = outbox
        self._looks = looks
        self._queues: dict[str, DomainQueue] = {}
        self._running: dict[str, Execution] = {}
        self._tasks: TaskGroup | None = None
        self._closing = False
        self._executing = 0
        self._rest = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run for ever. Raises `JournalFull`."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(Notices(self._outbox, self._open).run)
                task_status.started()
                await self._sweep()
        finally:
            self._tasks = None

    async def _sweep(self) -> None:
        """Let the tasks of domains go that have nothing to do, and look again where an instance could not be marked; for ever."""
        while True:
            await anyio.sleep(LINGER_S)
            for uuid in self._inventory.unmarked():
                self.inspect(uuid)
            for queue in self._queues.values():
                if queue.idle:
                    queue.leaving = queue.resting
                    queue.wake()

    def _open(self) -> Iterator[tuple[Entry, Notice]]:
        """Yield the commands that wait or run."""
        running = [execution.order for execution in self._running.values() if not execution.over]
        for order in (*running, *(order for queue in self._queues.values() for order in queue.orders)):
            if order.entry.phase != "begun":  # else it was told by the worker that died
                yield order.entry, order.notice

    def submit(self, order: Order) -> None:
        """Queue an order behind those of its domain."""
        queue = self._queue(order.entry.uuid)
        alone = queue.resting and queue.idle
        queue.add(order)
        if not alone:
            self._remind(queue, order)

    def waiting(self, uuid: str) -> int:
        """Return how many commands wait for a domain."""
        queue = self._queues.get(uuid)
        return len(queue.orders) if queue is not None else 0

    def withdraw(self, entry: Entry) -> bool:
        """Take back a command that has not begun, and will not: whoever asks ends it. False if it has begun, or is not here."""
        queue, running = self._queues.get(entry.uuid), self._running.get(entry.uuid)
        return (queue is not None and queue.withdraw(entry)) or (running is not None and running.withdraw(entry))

    def abort(self, entry: Entry, by: str) -> Stopping:
        """Have a command that has begun given up, for the cancel `by`."""
        queue, running = self._queues.get(entry.uuid), self._running.get(entry.uuid)
        if queue is not None and any(order.entry.id == entry.id and order.entry.project == entry.project for order in queue.orders):
            return "later"
        return "asked" if running is not None and running.abort(entry, by) else "no"

    def happened(self, hypervisor: Hypervisor, happening: Happening) -> None:
        """Queue an event of a domain. What comes when nothing runs any more, the next start finds by its scan."""
        if self._tasks is not None:
            self._queue(happening.uuid).push(hypervisor, happening)

    def missed(self, hypervisor: Hypervisor, uuid: str, count: int) -> None:
        """Take that a domain had more events than could be kept."""
        if self._tasks is not None:
            self._queue(uuid).miss(hypervisor, count)

    def inspect(self, uuid: str, stranger: Hypervisor | None = None) -> None:
        """Have a domain looked at in its turn, and told what differs, or what `stranger`, which is not its home, has to do with it."""
        queue = self._queue(uuid)
        if stranger is None:
            queue.inspect = True
        else:
            queue.strangers[stranger] = None
        queue.wake()

    async def quiesce(self) -> None:
        """Begin no further command; return once those that run have ended."""
        self._closing = True
        while self._executing:
            self._rest = anyio.Event()
            await self._rest.wait()

    def _queue(self, uuid: str) -> DomainQueue:
        queue = self._queues.get(uuid)
        if queue is None:
            assert self._tasks is not None  # noqa: S101 - orders and events flow only while it runs
            queue = self._queues[uuid] = DomainQueue(uuid, self._inventory, self._outbox, self._looks)
            self._tasks.start_soon(self._drain, queue)
        return queue

    def _remind(self, queue: DomainQueue, order: Order) -> None:
        """See to it that an order which waits ends at its deadline."""
        assert self.around is not None  # noqa: S101 - set before anything is submitted
        left = order.entry.deadline - self.around.clock()
        queue.reminders[order.entry.sequence] = asyncio.get_running_loop().call_later(max(0.0, left), self._remember, queue, order)

    def _remember(self, queue: DomainQueue, order: Order) -> None:
        if self.around is None or self._tasks is None or order.entry.phase == "begun":
            return
        if order.entry.deadline > self.around.clock():
            self._remind(queue, order)
        elif queue.withdraw(order.entry):
            self._tasks.start_soon(self._expire, order.entry)

    async def _expire(self, entry: Entry) -> None:
        assert self.around is not None  # noqa: S101 - set before anything is submitted
        await self.around.ledger.end(entry, failed(entry, self.around.node, DeadlineExceeded("not begun before its deadline")))

    async def _drain(self, queue: DomainQueue) -> None:
        try:
            while not (queue.leaving and queue.idle):
                if queue.restless:
                    await queue.tell()
                elif queue.orders and not self._closing:
                    await self._execute(queue, queue.pop())
                else:
                    queue.resting = True
                    await queue.arrival()
                    queue.resting = False
        finally:
            del self._queues[queue.uuid]

    async def _execute(self, queue: DomainQueue, order: Order) -> None:
        assert self.around is not None  # noqa: S101 - set before anything is submitted
        assert order.command is not None  # noqa: S101 - what has no command was ended by the ledger
        self._executing += 1
        try:
            execution = self._running[queue.uuid] = Execution(self.around, queue, order, order.command)
            await execution.run()
        finally:
            self._running.pop(queue.uuid, None)
            self._executing -= 1
            self._rest.set()
