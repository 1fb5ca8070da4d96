"""A journal that is behind the logs, lost or an older copy, is brought up to date from them (PROTOCOL §3, decision 6).

Every event in the log was in the journal first. So the journal is behind if the log holds an event of this node that comes
after the last one that the journal remembers, or the node's record an epoch that it does not know. Then, before
this worker says or does anything: what the node's domains were is read from its state keys, how its commands ended from its
`command` events, and what else lies in its log of orders is marked as in doubt. The journal stays behind until the
first event of the new epoch is in it, so a rebuilding that was cut off begins again at the next start, and does no harm.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import TypeVar

import anyio
import msgspec

from orchestrator.bus import header
from orchestrator.bus.port import Bus, BusError, Message, Start
from orchestrator.log import get_logger
from orchestrator.protocol import codec, token
from orchestrator.protocol.command import Result
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.event import TERMINAL, position
from orchestrator.protocol.node import Node
from orchestrator.protocol.subject import ALL_COMMANDS, NONE, Subjects
from orchestrator.store.kv import KeyValue
from workers.engine.lease import refuse_foreign
from workers.journal.port import Advanced, Begun, Change, Doubted, Ended, Entry, Journal, Position, Received, Recovery, Stored, Told

PORTION = 256
"""Messages that are read at a time, and committed as one."""

RETRY_S = 0.2

T = TypeVar("T")

log = get_logger()


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker keeps of a node's workers so far. last: the last event in the log. epoch: the latest one met, "" if none."""

    last: Position | None = None
    epoch: str = ""

    def is_ahead_of(self, recovery: Recovery) -> bool:
        """Tell whether a journal lacks something of it."""
        if self.last is not None and (recovery.last is None or self.last > recovery.last):
            return True
        return self.epoch > (recovery.epochs[-1] if recovery.epochs else "")


class _Told(msgspec.Struct, frozen=True):
    """The part of an event that tells how a command ended, and which."""

    epoch: str
    sequence: str
    data: msgspec.Raw
    commandid: str
    commandsequence: str = ""
    commanddigest: str = ""
    commandfence: str = ""


class Rebuild:
    """Reads one node's past. Whatever the broker does, it goes on until it is done."""

    def __init__(self, bus: Bus, journal: Journal, subjects: Subjects, node: str) -> None:
        self._bus = bus
        self._journal = journal
        self._subjects = subjects
        self._node = node
        self._highest = 0

    async def past(self) -> Past:
        """Return what is known of earlier workers of this node; waits while the broker is away."""
        message = await self._tried(lambda: self._bus.last(self._subjects.log_evt, self._subjects.node_events(self._node)))
        last = Position(*position(message.headers["Nats-Msg-Id"])) if message is not None else None
        nodes = KeyValue(self._bus, self._subjects.bucket("nodes"))
        record = await self._tried(lambda: nodes.get(self._node))
        recorded = _epoch(record.value) if record is not None and record.value is not None else ""
        return Past(last=last, epoch=max(recorded, last.epoch if last is not None else ""))

    async def run(self, recovery: Recovery, past: Past) -> None:
        """Bring the journal up to date; open it again afterwards. Raises `Taken`, `JournalFull`, `JournalError`."""
        leases = KeyValue(self._bus, self._subjects.bucket("leases"))
        refuse_foreign(await self._tried(lambda: leases.get(self._node)), self._node, recovery.epochs)
        log.warning("worker.journal_behind", node=self._node, hint="lost, or an older copy; it is rebuilt from the logs", epoch=past.epoch)
        domains = await self._recall(f"KV_{self._subjects.bucket('domains')}", self._own_keys(), self._domain)
        ends = self._subjects.evt(self._node, "*", "*", ALL_COMMANDS)
        outcomes = await self._recall(self._subjects.log_evt, ends, self._outcome)
        doubt = max(await self._horizon(), recovery.doubt)
        begun = (Begun(entry.project, entry.id) for entry in recovery.unfinished)
        stored = (Stored(past.last),) if past.last is not None else ()
        await self._journal.commit(*begun, *stored, Advanced(await self._kept()), Doubted(doubt))
        log.warning("worker.journal_rebuilt", node=self._node, outcomes=outcomes, domains=domains, in_doubt_up_to=doubt)

    async def _recall(self, name: str, subjects: str, read: Callable[[Message], Iterator[Change]]) -> int:
        """Commit what `read` makes of each message of a log, a portion at a time; return how many said anything."""
        count = 0
        async with aclosing(self._portions(name, subjects)) as portions:
            async for messages in portions:
                said = [change for change in map(tuple, map(read, messages)) if change]
                count += len(said)
                if said:
                    await self._journal.commit(*(change for changes in said for change in changes))
        return count

    async def _portions(self, name: str, subjects: str) -> AsyncGenerator[Sequence[Message]]:
        reached = 0
        while True:
            try:
                reader = await self._bus.reader(name, self._node, subjects, Start(sequence=reached + 1))
                left = reader.pending
                while left > 0 and (messages := await reader.take(min(left, PORTION))):
                    left -= len(messages)
                    reached = messages[-1].sequence
                    yield messages
            except BusError as error:
                await self._interrupted(error)
            else:
                return

    def _own_keys(self) -> str:
        return f"$KV.{self._subjects.bucket('domains')}.{self._node}.>"

    def _domain(self, message: Message) -> Iterator[Change]:
        if header.is_marker(message.headers):
            return
        try:
            observed = codec.decode(message.body, Observed)
        except Invalid:
            return  # of another version: the scan tells what there is
        yield Told((), {observed.uuid: observed})

    def _outcome(self, message: Message) -> Iterator[Change]:
        told = self._subjects.parse_event(message.subject)
        if told.event not in TERMINAL:
            return
        event = codec.decode(message.body, _Told)
        result = codec.decode(bytes(event.data), Result)
        at = Position(event.epoch, int(event.sequence))
        routed = self._subjects.run(self._node, told.project, told.domain, result.verb) if told.domain != NONE else ""
        entry = Entry(
            project=told.project,
            id=event.commandid,
            sequence=int(event.commandsequence or 0),
            subject=routed if result.subject is msgspec.UNSET else result.subject,
            verb=result.verb,
            uuid=told.domain,
            digest=event.commanddigest,
            body=b"",
            headers={},
            deadline=0.0,
            fence=int(event.commandfence or 0),
            phase="stored",
            result=bytes(event.data),
            event=at,
            ended=message.time,
        )
        self._highest = max(self._highest, entry.sequence)
        yield Received(entry)
        yield Ended(entry.project, entry.id, entry.result, at, entry.ended)  # where an older copy has it as unfinished

    async def _horizon(self) -> int:
        """Return the last order that an earlier worker may have seen."""
        last = await self._tried(lambda: self._bus.last(self._subjects.log_run, self._subjects.runs(self._node)))
        return last.sequence if last is not None else 0

    async def _kept(self) -> int:
        """Return a sequence up to which nothing is left in the node's log of orders."""

        async def first() -> list[Message]:
            reader = await self._bus.reader(self._subjects.log_run, self._node, self._subjects.runs(self._node), Start())
            return await reader.take(1)

        found = await self._tried(first)
        return found[0].sequence - 1 if found else self._highest

    async def _tried(self, act: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await act()
            except BusError as error:
                await self._interrupted(error)

    async def _interrupted(self, error: BusError) -> None:
        log.info("reading the node's past interrupted", node=self._node, reason=str(error) or type(error).__name__)
        await anyio.sleep(RETRY_S)
        await self._bus.link.up()


def _epoch(record: bytes) -> str:
    """Return the epoch in a node's record, "" if there is none to be read."""
    try:
        epoch = codec.decode(record, Node).epoch
        token.ulid_milliseconds(epoch)
    except Invalid:
        return ""
    return epoch
