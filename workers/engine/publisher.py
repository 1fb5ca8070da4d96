"""Outbox to log: at most one publish in flight, fenced by the node's last stored sequence (PROTOCOL §3, outbound).

So stream order is sequence order, once, however long an outage lasted: after each connect and each publish whose
fate is unknown the last stored event is read, and publishing goes on right after it.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from orchestrator.bus.port import MAX_BATCH, Bus, BusError, Expect, Outgoing, Refused, Stale
from orchestrator.log import get_logger
from orchestrator.protocol.event import CONTENT_TYPE, position
from orchestrator.protocol.subject import Subjects
from workers.engine.outbox import Outbox, Waiting
from workers.journal.port import Journal, Position, Stored

BATCH_FROM = 10
"""Events waiting from which an atomic batch is cheaper than single publishes (a batch syncs to disk)."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
RETRY_S = 0.2

log = get_logger()


class Superseded(Exception):
    """Another worker has taken over this node: its epoch is newer than ours. Stop."""


class Publisher:
    """Moves one worker's events from the outbox into the log."""

    def __init__(
        self, bus: Bus, journal: Journal, outbox: Outbox, subjects: Subjects, node: str, stored: Callable[[list[Waiting]], None]
    ) -> None:
        """Tell `stored` of events that are in the log now, in order."""
        self._bus = bus
        self._journal = journal
        self._outbox = outbox
        self._log = subjects.log_evt
        self._mine = subjects.node_events(node)
        self._stored = stored
        self._fence = 0
        self._reached = Position("", 0)
        self._moved = anyio.Event()

    async def run(self) -> None:
        """Publish for ever. Raises `Superseded`, `JournalFull`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._note)
            await self._keep_publishing()

    async def _keep_publishing(self) -> None:
        while True:
            session = await self._bus.link.up()
            try:
                await self._resume()
                await self._publish(session)
            except BusError as error:
                # Whatever it was: the log alone says what is stored, so look again.
                log.info("publishing interrupted", reason=str(error) or type(error).__name__)
                if isinstance(error, Refused) and not isinstance(error, Stale):
                    await anyio.sleep(RETRY_S)

    async def _resume(self) -> None:
        last = await self._bus.last(self._log, self._mine)
        self._fence = last.sequence if last is not None else 0
        found = Position(*position(last.headers["Nats-Msg-Id"])) if last is not None else Position("", 0)
        if found.epoch > self._outbox.epoch:
            raise Superseded(f"events of a newer epoch {found.epoch} are in the log")
        self._passed(found)

    async def _publish(self, session: int) -> None:
        while self._bus.link.session == session:
            await self._outbox.filled()
            ready = self._outbox.ready(MAX_BATCH)
            batch = _portion(ready) if len(ready) >= BATCH_FROM else ready[:1]
            messages = [_message(waiting) for waiting in batch]
            expect = Expect(self._fence, self._mine)
            if len(messages) == 1:
                self._fence = await self._bus.append(messages[0], expect)
            else:
                self._fence = await self._bus.append_all(messages, expect)
            self._passed(batch[-1].event.position)

    def _passed(self, reached: Position) -> None:
        dropped = self._outbox.drop_to(reached)
        if dropped:
            self._reached = reached
            self._stored(dropped)
            self._moved.set()

    async def _note(self) -> None:
        """Note in the journal what is stored, beside the publishing: at a crash before it the log itself tells."""
        while True:
            await self._moved.wait()
            self._moved = anyio.Event()
            await self._journal.commit(Stored(self._reached))


def _message(waiting: Waiting) -> Outgoing:
    event = waiting.event
    node = event.subject.split(".")[3]
    headers = {"Content-Type": CONTENT_TYPE, "Nats-Msg-Id": f"{node}.{event.position.epoch}.{event.position.sequence:016d}"}
    return Outgoing(event.subject, event.body, headers)


def _portion(ready: list[Waiting]) -> list[Waiting]:
    size = 0
    for at, waiting in enumerate(ready):
        size += len(waiting.event.body)
        if size > MAX_BATCH_BYTES and at > 0:
            return ready[:at]
    return ready
