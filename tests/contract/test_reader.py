"""Laws of reading a log: each holds in memory and on the real broker."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.bus.port import Bus, LogConfig, Message, Outgoing, Refused, Start, Uncertain
from tests.contract.ear import PATIENCE_S
from tests.contract.systems import System
from tests.contract.witness import bodies, filled, provisioned, read, taken

pytestmark = pytest.mark.anyio


async def test_a_reader_takes_all_in_order(system: System, bus: Bus, log: LogConfig) -> None:
    """In portions of the limit, and then nothing."""
    await filled(bus, *[f"{system.word}.{number % 3}" for number in range(25)])
    reader = await bus.reader(log.name, "r", ">", Start())
    assert 25 == reader.pending
    portions = [await reader.take(10) for _ in range(4)]
    assert [str(number).encode() for number in range(25)] == [message.body for portion in portions for message in portion]
    assert max(map(len, portions)) <= 10
    assert [] == await reader.take(10)


async def test_a_reader_takes_what_its_filter_takes(system: System, bus: Bus, log: LogConfig) -> None:
    """And counts as pending no more than that."""
    n1, n2 = f"{system.word}.n1.a", f"{system.word}.n2.a"
    await filled(bus, n1, n2, n1)
    reader = await bus.reader(log.name, "r", f"{system.word}.n1.>", Start())
    assert 2 == reader.pending
    assert [b"0", b"2"] == bodies(await taken(reader))


async def test_a_reader_starts_where_it_is_told(system: System, bus: Bus, log: LogConfig) -> None:
    """At a sequence or the first after it, at a time, with the last of each subject, or with what is new."""
    a, b = f"{system.word}.a", f"{system.word}.b"
    sequences = await filled(bus, a, b, a, b, a)
    await bus.purge(log.name, a, sequences[2])
    stored = await read(bus, log)
    expected = {
        Start(): [1, 3, 4],
        Start(sequence=0): [1, 3, 4],
        Start(sequence=sequences[2]): [3, 4],
        Start(sequence=sequences[3]): [3, 4],
        Start(sequence=sequences[4] + 1): [],
        Start(sequence=sequences[4] + 1000): [],
        Start(time=stored[0].time - 60): [1, 3, 4],
        Start(time=stored[-1].time + 60): [],
        Start(last_per_subject=True): [3, 4],
        Start(new=True): [],
    }
    for number, (start, messages) in enumerate(expected.items()):
        reader = await bus.reader(log.name, f"r{number}", ">", start)
        assert (start, len(messages)) == (start, reader.pending)
        assert (start, [str(message).encode() for message in messages]) == (start, bodies(await taken(reader)))


async def test_a_reader_from_a_time_begins_at_the_first_stored_since(system: System, bus: Bus, log: LogConfig) -> None:
    """What is older stays behind."""
    await filled(bus, f"{system.word}.a")
    reader = await bus.reader(log.name, "clock", ">", Start())
    await filled(bus, f"{system.word}.b")
    assert [f"{system.word}.b"] == [message.subject for message in await read(bus, log, start=Start(time=reader.broker_time))]


async def test_a_reader_goes_on_with_what_comes(system: System, bus: Bus, log: LogConfig) -> None:
    """Also from an end that the log has not reached, and for any of the starts."""
    readers = [
        await bus.reader(log.name, f"r{number}", ">", start)
        for number, start in enumerate((Start(), Start(sequence=1), Start(last_per_subject=True), Start(new=True)))
    ]
    for body in (b"0", b"1"):
        await bus.append(Outgoing(f"{system.word}.a", body))
        assert [[body]] * 4 == [bodies(await reader.take(10, wait_s=PATIENCE_S)) for reader in readers]


async def test_a_waiting_reader_wakes_for_its_filter(system: System, bus: Bus, other: Bus, log: LogConfig) -> None:
    """The first message that matches ends the wait, others do not."""
    reader = await bus.reader(log.name, "r", f"{system.word}.n1.>", Start(new=True))
    got: list[Message] = []

    async def wait() -> None:
        got.extend(await reader.take(10, wait_s=PATIENCE_S))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await filled(other, f"{system.word}.n2.a", f"{system.word}.n1.a")
    assert [b"1"] == bodies(got)


async def test_a_reader_waits_no_longer_than_told(system: System, bus: Bus, log: LogConfig) -> None:
    """It returns nothing, and misses nothing after."""
    reader = await bus.reader(log.name, "r", ">", Start())
    with anyio.fail_after(PATIENCE_S):
        assert [] == await reader.take(10, wait_s=0.05)
    await filled(bus, f"{system.word}.a")
    assert [b"0"] == bodies(await reader.take(10, wait_s=PATIENCE_S))


async def test_a_cancelled_wait_loses_nothing(system: System, bus: Bus, log: LogConfig) -> None:
    """What came for a wait that was given up is there for the next."""
    reader = await bus.reader(log.name, "r", ">", Start())
    with anyio.move_on_after(0.05):
        await reader.take(10, wait_s=PATIENCE_S)
    await filled(bus, f"{system.word}.a", f"{system.word}.a")
    messages: list[Message] = []
    while len(messages) < 2:
        messages += await reader.take(10, wait_s=PATIENCE_S)
    assert [b"0", b"1"] == bodies(messages)


async def test_a_reader_takes_the_place_of_its_namesake(system: System, bus: Bus, other: Bus, log: LogConfig) -> None:
    """The earlier one is told, even while it waits; another start is no hindrance."""
    await filled(bus, f"{system.word}.a")
    first = await bus.reader(log.name, "r", ">", Start(new=True))
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(Uncertain):
                await first.take(10, wait_s=PATIENCE_S)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        second = await other.reader(log.name, "r", ">", Start())
    assert [b"0"] == bodies(await taken(second))


async def test_a_log_has_so_many_readers(system: System, bus: Bus) -> None:
    """One more is refused; one that takes the place of its namesake is not one more."""
    log = await provisioned(bus, LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_consumers=1))
    await bus.reader(log.name, "r", ">", Start())
    with pytest.raises(Refused) as refusal:
        await bus.reader(log.name, "one-more", ">", Start())
    assert 10026 == refusal.value.code
    await bus.reader(log.name, "r", ">", Start(new=True))


async def test_a_reader_ends_with_its_session(system: System, bus: Bus, other: Bus, log: LogConfig) -> None:
    """One that waits and one that is asked later; a new one goes on after the last taken."""
    await filled(bus, f"{system.word}.a")
    reader = await bus.reader(log.name, "r", ">", Start())
    idle = await bus.reader(log.name, "idle", ">", Start(new=True))
    (first,) = await reader.take(10)
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with anyio.fail_after(PATIENCE_S), pytest.raises(Uncertain):
                await reader.take(10, wait_s=60)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        system.cut(bus)
    with pytest.raises(Uncertain):
        await idle.take(10)
    await filled(other, f"{system.word}.b")
    system.restore(bus)
    with anyio.fail_after(PATIENCE_S):
        await bus.link.up(after=1)
    with pytest.raises(Uncertain):
        await reader.take(10)
    assert [f"{system.word}.b"] == [message.subject for message in await read(bus, log, start=Start(sequence=first.sequence + 1))]


async def test_the_brokers_clock_is_learnt(system: System, log: LogConfig) -> None:
    """From a reader; before, the offset is zero. Both run on this machine, so it stays near."""
    async with system.bus() as fresh:
        assert fresh.offset_s == 0.0
        await fresh.reader(log.name, "r", ">", Start())
        assert fresh.offset_s != 0.0
        assert abs(fresh.offset_s) < 5.0
