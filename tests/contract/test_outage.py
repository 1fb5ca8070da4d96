"""Laws of going on after a break, as the engines rely on them: nothing lost, nothing twice, nothing out of order."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.bus.port import Bus, Expect, LogConfig, Message, Outgoing, Stale, Start, Unavailable, Uncertain
from tests.contract.ear import PATIENCE_S
from tests.contract.systems import System
from tests.contract.witness import bodies, filled, read

pytestmark = pytest.mark.anyio


async def test_an_append_whose_answer_is_lost_is_uncertain_and_done(system: System, bus: Bus, other: Bus, log: LogConfig) -> None:
    """Who does not hear from the broker looks, and finds it there."""
    system.cut(bus, on_answer=True)
    with anyio.fail_after(PATIENCE_S), pytest.raises(Uncertain):
        await bus.append(Outgoing(f"{system.word}.a", b"1"))
    await bus.link.down(1)
    system.restore(bus)
    with anyio.fail_after(PATIENCE_S):
        await bus.link.up(after=1)
    last = await bus.last(log.name, f"{system.word}.a")
    assert last is not None
    assert b"1" == last.body
    assert [b"1"] == bodies(await read(other, log))


async def test_a_batch_whose_answer_is_lost_is_uncertain_and_whole(system: System, bus: Bus, other: Bus, log: LogConfig) -> None:
    """All of it is there, in order."""
    batch = [Outgoing(f"{system.word}.a", str(number).encode()) for number in range(50)]
    system.cut(bus, on_answer=True)
    with anyio.fail_after(PATIENCE_S), pytest.raises(Uncertain):
        await bus.append_all(batch, Expect(0))
    assert [message.body for message in batch] == bodies(await read(other, log))


@pytest.mark.parametrize("together", [1, 20])
async def test_one_publish_in_flight_leaves_neither_hole_nor_double(
    system: System, bus: Bus, other: Bus, log: LogConfig, together: int
) -> None:
    """A fenced publisher that looks after each break, and goes on right after what it finds, survives any number of them."""
    total = 200
    tree = f"{system.word}.>"
    breaks = iter(range(together, total, 40))
    publisher = Publisher(bus, log.name, tree, [Outgoing(f"{system.word}.{number % 3}", str(number).encode()) for number in range(total)])
    next_break = next(breaks)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            while publisher.stored < total:
                if publisher.stored >= next_break:
                    system.cut(bus, on_answer=True)
                    next_break = next(breaks, total)
                    tasks.start_soon(restored, system, bus)
                await publisher.step(together)
    assert [str(number).encode() for number in range(total)] == bodies(await read(other, log))
    assert publisher.broken > 2


async def test_a_publisher_superseded_meanwhile_is_stale(system: System, bus: Bus, other: Bus, log: LogConfig) -> None:
    """What it goes on with after another wrote is refused, in a batch too."""
    tree = f"{system.word}.>"
    first = await bus.append(Outgoing(f"{system.word}.a", b"mine"), Expect(0, tree))
    await other.append(Outgoing(f"{system.word}.a", b"theirs"), Expect(first, tree))
    with pytest.raises(Stale):
        await bus.append(Outgoing(f"{system.word}.a", b"late"), Expect(first, tree))
    with pytest.raises(Stale):
        await bus.append_all([Outgoing(f"{system.word}.a", b"late")] * 2, Expect(first, tree))
    assert [b"mine", b"theirs"] == bodies(await read(bus, log))


async def test_pushes_and_the_log_together_miss_nothing(system: System, bus: Bus, other: Bus) -> None:
    """A follower that hears pushes, and reads the log from its cursor in each new session, has every message in order, once."""
    word = system.word
    log = LogConfig(name=f"LOG-{word}", subjects=(f"{word}.run.>",), republish=(f"{word}.run.>", f"{word}.dlv.>"))
    await bus.provision([log])
    follower = Follower(other, log.name, f"{word}.run.n1.>")
    async with other.listen(f"{word}.dlv.n1.>", follower.push), anyio.create_task_group() as tasks:
        tasks.start_soon(follower.run)
        sequences = await filled(bus, *[f"{word}.run.n1.a", f"{word}.run.n2.a"] * 5)
        await follower.until(sequences[8])
        system.cut(other)
        await other.link.down(1)
        sequences += await filled(bus, *[f"{word}.run.n1.a", f"{word}.run.n2.a"] * 5)
        system.restore(other)
        sequences += await filled(bus, *[f"{word}.run.n1.a", f"{word}.run.n2.a"] * 50)
        await follower.until(sequences[-2])
        tasks.cancel_scope.cancel()
    assert sequences[::2] == follower.sequences


async def restored(system: System, bus: Bus) -> None:
    """Restore a bus as soon as its present session has ended."""
    await bus.link.down(bus.link.session)
    system.restore(bus)


class Publisher:
    """An outbox: one append in flight, and a look at the log after each that broke."""

    def __init__(self, bus: Bus, log: str, tree: str, messages: list[Outgoing]) -> None:
        self.stored = 0
        self.broken = 0
        self._bus = bus
        self._log = log
        self._tree = tree
        self._messages = messages
        self._last: int | None = None

    async def step(self, together: int) -> None:
        """Store the next few messages, or find out how far the last attempt came."""
        try:
            await self._bus.link.up()
            if self._last is None:
                await self._look()
                return
            batch = self._messages[self.stored : self.stored + together]
            self._last = await self._bus.append_all(batch, Expect(self._last, self._tree))
            self.stored += len(batch)
        except (Uncertain, Unavailable):
            self.broken += self._last is not None
            self._last = None

    async def _look(self) -> None:
        last = await self._bus.last(self._log, self._tree)
        self._last = last.sequence if last is not None else 0
        self.stored = int(last.body) + 1 if last is not None else 0


class Follower:
    """A worker's inbound side, in short: pushes are taken when the log was read up to them, in each session."""

    def __init__(self, bus: Bus, log: str, subjects: str) -> None:
        self.sequences: list[int] = []
        self._bus = bus
        self._log = log
        self._subjects = subjects
        self._waiting: list[Message] = []
        self._whole = 0
        self._more = anyio.Event()

    def push(self, message: Message) -> None:
        """Take a push: at once if this session has read the log, else when it has."""
        if self._whole == self._bus.link.session:
            self._take(message)
        else:
            self._waiting.append(message)

    async def run(self) -> None:
        """Read the log in each session."""
        session = 0
        while True:
            session = await self._bus.link.up(after=session)
            try:
                await self._read(session)
            except (Uncertain, Unavailable):
                continue
            await self._bus.link.down(session)

    async def until(self, sequence: int) -> None:
        """Wait until a sequence was taken."""
        with anyio.fail_after(PATIENCE_S):
            while not self.sequences or self.sequences[-1] < sequence:
                await self._more.wait()

    async def _read(self, session: int) -> None:
        after = self.sequences[-1] if self.sequences else 0
        reader = await self._bus.reader(self._log, "follower", self._subjects, Start(sequence=after + 1))
        while messages := await reader.take(7):
            for message in messages:
                self._take(message)
        waiting, self._waiting = self._waiting, []
        self._whole = session
        for message in waiting:
            self._take(message)

    def _take(self, message: Message) -> None:
        if not self.sequences or message.sequence > self.sequences[-1]:
            self.sequences.append(message.sequence)
            more, self._more = self._more, anyio.Event()
            more.set()
