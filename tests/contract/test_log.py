"""Laws of logs: each holds in memory and on the real broker."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.bus.port import (
    MAX_BATCH,
    Bus,
    Expect,
    Full,
    LogConfig,
    Outgoing,
    Refused,
    Stale,
    Start,
    Unavailable,
)
from tests.contract.ear import PATIENCE_S, Ear
from tests.contract.systems import System
from tests.contract.witness import bodies, filled, provisioned, read

pytestmark = pytest.mark.anyio


# -- append


async def test_sequences_rise_from_the_first(system: System, bus: Bus) -> None:
    """A log given a first sequence begins there."""
    await provisioned(bus, LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), first_sequence=1_700_000_000_000_000))
    sequences = await filled(bus, f"{system.word}.a", f"{system.word}.b", f"{system.word}.a")
    assert [1_700_000_000_000_000, 1_700_000_000_000_001, 1_700_000_000_000_002] == sequences


async def test_what_no_log_captures_is_not_stored(system: System, bus: Bus) -> None:
    """The publisher is told at once."""
    with pytest.raises(Unavailable):
        await bus.append(Outgoing(f"{system.word}.a", b""))
    with pytest.raises(Unavailable):
        await bus.append_all([Outgoing(f"{system.word}.a", b""), Outgoing(f"{system.word}.a", b"")], Expect(0))


async def test_a_stored_message_is_what_was_appended(system: System, bus: Bus, log: LogConfig) -> None:
    """Subject, body and headers come back, with sequence and time."""
    sequence = await bus.append(Outgoing(f"{system.word}.a", b"body", {"Virt-Id": "x"}))
    reader = await bus.reader(log.name, "r", ">", Start())
    (message,) = await reader.take(10)
    assert (f"{system.word}.a", b"body", "x", sequence) == (message.subject, message.body, message.headers["Virt-Id"], message.sequence)
    assert abs(reader.broker_time - message.time) < PATIENCE_S


async def test_plain_publish_is_stored_too(system: System, bus: Bus, log: LogConfig) -> None:
    """A log captures its subjects whoever publishes there, and however."""
    async with Ear.at(bus, f"{system.word}.a") as ear:
        await bus.publish(f"{system.word}.a", b"plain")
        await ear.until(1)
    assert [b"plain"] == bodies(await read(bus, log))


async def test_listeners_hear_what_is_appended(system: System, bus: Bus, other: Bus, log: LogConfig) -> None:
    """Also what the log then refuses: a core subscriber has no guarantee."""
    async with Ear.at(other, f"{system.word}.a") as ear:
        await bus.append(Outgoing(f"{system.word}.a", b"stored"))
        with pytest.raises(Stale):
            await bus.append(Outgoing(f"{system.word}.a", b"refused"), Expect(77))
        await ear.until(2)
        assert [b"stored", b"refused"] == ear.bodies
    assert [b"stored"] == bodies(await read(bus, log))


async def test_a_repeat_of_a_message_id_is_stored_once(system: System, bus: Bus, log: LogConfig) -> None:
    """The first's sequence is returned, even where it was purged meanwhile."""
    message = Outgoing(f"{system.word}.a", b"1", {"Nats-Msg-Id": "one"})
    first = await bus.append(message)
    assert first == await bus.append(message)
    assert [b"1"] == bodies(await read(bus, log))
    await bus.purge(log.name, ">", first)
    assert first == await bus.append(message)


async def test_a_message_over_the_limit_is_refused(system: System, bus: Bus) -> None:
    """Nothing of it is stored."""
    log = await provisioned(bus, LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_message=100))
    with pytest.raises(Refused) as refusal:
        await bus.append(Outgoing(f"{system.word}.a", bytes(101)))
    assert 10054 == refusal.value.code
    assert [] == await read(bus, log)


# -- fences


async def test_a_fence_holds_for_its_subject_alone(system: System, bus: Bus, log: LogConfig) -> None:
    """Zero where there is none, then the last sequence of that very subject."""
    a, b = f"{system.word}.a", f"{system.word}.b"
    first = await bus.append(Outgoing(a, b"1"), Expect(0))
    await bus.append(Outgoing(b, b"2"), Expect(0))
    await bus.append(Outgoing(a, b"3"), Expect(first))
    for last in (0, first, 77):
        with pytest.raises(Stale) as refusal:
            await bus.append(Outgoing(a, b"stale"), Expect(last))
        assert 10071 == refusal.value.code
    assert [b"1", b"2", b"3"] == bodies(await read(bus, log))


async def test_a_fence_with_wildcards_holds_for_the_whole_tree(system: System, bus: Bus, log: LogConfig) -> None:
    """What another put anywhere under it makes an append stale."""
    tree = f"{system.word}.n1.>"
    first = await bus.append(Outgoing(f"{system.word}.n1.a", b"1"), Expect(0, tree))
    second = await bus.append(Outgoing(f"{system.word}.n1.b", b"2"), Expect(first, tree))
    await bus.append(Outgoing(f"{system.word}.n2.a", b"foreign"))
    with pytest.raises(Stale):
        await bus.append(Outgoing(f"{system.word}.n1.a", b"stale"), Expect(first, tree))
    await bus.append(Outgoing(f"{system.word}.n1.a", b"3"), Expect(second, tree))
    assert [b"1", b"2", b"3"] == bodies(await read(bus, log, tree))


async def test_a_fence_of_what_was_purged_is_zero(system: System, bus: Bus, log: LogConfig) -> None:
    """Only what is kept counts."""
    (sequence,) = await filled(bus, f"{system.word}.a")
    await bus.purge(log.name, f"{system.word}.a", sequence)
    assert sequence + 1 == await bus.append(Outgoing(f"{system.word}.a", b""), Expect(0))


@pytest.mark.usefixtures("log")
async def test_a_stale_repeat_is_stale(system: System, bus: Bus) -> None:
    """The fence is looked at before the message id: a publisher in doubt must look."""
    message = Outgoing(f"{system.word}.a", b"1", {"Nats-Msg-Id": "one"})
    await bus.append(message, Expect(0))
    with pytest.raises(Stale):
        await bus.append(message, Expect(0))


# -- limits


async def test_a_full_log_refuses_and_stores_nothing(system: System, bus: Bus) -> None:
    """Single messages and batches alike; after a trim there is room again."""
    config = LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_bytes=1000, discard_new=True)
    log = await provisioned(bus, config)
    subject = f"{system.word}.a"
    stored = [await bus.append(Outgoing(subject, bytes(200))) for _ in range(4)]
    with pytest.raises(Full) as refusal:
        await bus.append(Outgoing(subject, bytes(200)))
    assert 10077 == refusal.value.code
    with pytest.raises(Full):
        await bus.append_all([Outgoing(subject, b"fits"), Outgoing(subject, bytes(200))], Expect(stored[-1]))
    assert stored == [message.sequence for message in await read(bus, log)]
    await bus.purge(log.name, subject, stored[0])
    assert stored[-1] + 1 == await bus.append(Outgoing(subject, bytes(200)))


async def test_a_full_log_tells_who_is_stale_first(system: System, bus: Bus) -> None:
    """A superseded writer learns that it is one, however full the log is."""
    config = LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_bytes=300, discard_new=True)
    await provisioned(bus, config)
    await bus.append(Outgoing(f"{system.word}.a", bytes(200)))
    with pytest.raises(Stale):
        await bus.append(Outgoing(f"{system.word}.a", bytes(200)), Expect(0))


async def test_a_log_may_forget_its_oldest(system: System, bus: Bus) -> None:
    """With bytes and discard old it takes what comes, and keeps the newest."""
    log = await provisioned(bus, LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_bytes=1000))
    stored = [await bus.append(Outgoing(f"{system.word}.a", bytes(200))) for _ in range(9)]
    assert stored[-4:] == [message.sequence for message in await read(bus, log)]


async def test_a_log_may_keep_a_few_messages_a_subject(system: System, bus: Bus) -> None:
    """The newest of each."""
    log = await provisioned(bus, LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_per_subject=2))
    a, b = f"{system.word}.a", f"{system.word}.b"
    await filled(bus, a, b, a, a)
    assert [b"1", b"2", b"3"] == bodies(await read(bus, log))


async def test_what_is_too_old_is_forgotten_and_leaves_a_marker(system: System, bus: Bus) -> None:
    """Where the log makes markers; they follow in its order."""
    log = await provisioned(
        bus,
        LogConfig(
            name=f"LOG-{system.word}",
            subjects=(f"{system.word}.>",),
            max_age_s=1.0,
            duplicate_window_s=1.0,
            max_per_subject=1,
            markers_s=1.0,
        ),
    )
    sequence = await bus.append(Outgoing(f"{system.word}.a", b"1"))
    reader = await bus.reader(log.name, "r", ">", Start(sequence=sequence + 1))
    (marker,) = await reader.take(10, wait_s=PATIENCE_S)
    assert (f"{system.word}.a", b"", "MaxAge") == (marker.subject, marker.body, marker.headers["Nats-Marker-Reason"])
    assert sequence + 1 == marker.sequence


async def test_a_time_to_live_is_for_logs_with_markers(system: System, bus: Bus, log: LogConfig) -> None:
    """Others refuse it, as they refuse one that is none."""
    with pytest.raises(Refused) as refusal:
        await bus.append(Outgoing(f"{system.word}.a", b"", {"Nats-TTL": "1s"}))
    assert 10166 == refusal.value.code
    await bus.provision([LogConfig(name=log.name, subjects=log.subjects, markers_s=60)])
    with pytest.raises(Refused) as refusal:
        await bus.append(Outgoing(f"{system.word}.a", b"", {"Nats-TTL": "soon"}))
    assert 10165 == refusal.value.code


async def test_a_rollup_leaves_itself_alone(system: System, bus: Bus) -> None:
    """All earlier messages of its subject go, those of others stay; logs that are no buckets refuse it."""
    config = LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",))
    log = await provisioned(bus, config)
    a, b = f"{system.word}.a", f"{system.word}.b"
    rollup = Outgoing(a, b"rollup", {"Nats-Rollup": "sub"})
    with pytest.raises(Refused):
        await bus.append(rollup)
    log = await provisioned(bus, LogConfig(name=log.name, subjects=log.subjects, max_per_subject=10))
    await filled(bus, a, b, a)
    await bus.append(rollup)
    assert [b"1", b"rollup"] == bodies(await read(bus, log))


# -- batches


async def test_a_batch_is_stored_whole_and_in_order(system: System, bus: Bus, log: LogConfig) -> None:
    """Its sequences are contiguous, and the last is returned."""
    batch = [Outgoing(f"{system.word}.{number % 7}", str(number).encode()) for number in range(MAX_BATCH)]
    last = await bus.append_all(batch, Expect(0, f"{system.word}.>"))
    messages = await read(bus, log)
    assert [message.body for message in batch] == bodies(messages)
    assert list(range(last - MAX_BATCH + 1, last + 1)) == [message.sequence for message in messages]


async def test_a_batch_of_one_is_a_message(system: System, bus: Bus, log: LogConfig) -> None:
    """It is fenced and numbered like any other."""
    first = await bus.append_all([Outgoing(f"{system.word}.a", b"1")], Expect(0))
    with pytest.raises(Stale):
        await bus.append_all([Outgoing(f"{system.word}.a", b"2")], Expect(0))
    assert first + 1 == await bus.append_all([Outgoing(f"{system.word}.a", b"3")], Expect(first))
    assert [b"1", b"3"] == bodies(await read(bus, log))


async def test_a_stale_batch_stores_nothing(system: System, bus: Bus, log: LogConfig) -> None:
    """Neither the first nor any other message of it."""
    tree = f"{system.word}.>"
    await filled(bus, f"{system.word}.a")
    with pytest.raises(Stale):
        await bus.append_all([Outgoing(f"{system.word}.{number}", b"stale") for number in range(20)], Expect(0, tree))
    assert [b"0"] == bodies(await read(bus, log))


@pytest.mark.parametrize("second", ["one", "stored"])
async def test_a_batch_with_a_message_id_twice_stores_nothing(system: System, bus: Bus, log: LogConfig, second: str) -> None:
    """Whether the other one is in the batch itself or in the log."""
    stored = await bus.append(Outgoing(f"{system.word}.a", b"stored", {"Nats-Msg-Id": "stored"}))
    batch = [Outgoing(f"{system.word}.a", b"", {"Nats-Msg-Id": id}) for id in ("one", second)]
    with pytest.raises(Refused) as refusal:
        await bus.append_all(batch, Expect(stored))
    assert 10201 == refusal.value.code
    assert [b"stored"] == bodies(await read(bus, log))


async def test_a_batch_with_a_message_over_the_limit_stores_nothing(system: System, bus: Bus) -> None:
    """All or none."""
    log = await provisioned(bus, LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_message=100))
    batch = [Outgoing(f"{system.word}.a", bytes(size)) for size in (1, 101, 1)]
    with pytest.raises(Refused):
        await bus.append_all(batch, Expect(0))
    assert [] == await read(bus, log)


@pytest.mark.parametrize("size", [0, MAX_BATCH + 1])
async def test_a_batch_has_its_size(system: System, bus: Bus, log: LogConfig, size: int) -> None:
    """None and more than `MAX_BATCH` are refused."""
    with pytest.raises(Refused):
        await bus.append_all([Outgoing(f"{system.word}.a", b"")] * size, Expect(0))
    assert [] == await read(bus, log)


async def test_a_batch_belongs_to_one_log(system: System, bus: Bus, log: LogConfig) -> None:
    """What reaches into another stores nothing in either."""
    second = await provisioned(bus, LogConfig(name=f"LOG-{system.word}-2", subjects=(f"{system.word}-2.>",)))
    with pytest.raises(Refused):
        await bus.append_all([Outgoing(f"{system.word}.a", b""), Outgoing(f"{system.word}-2.a", b"")], Expect(0))
    assert [[], []] == [await read(bus, log), await read(bus, second)]


# -- last, purge


async def test_last_is_the_newest_under_a_filter(system: System, bus: Bus, log: LogConfig) -> None:
    """Exact or with wildcards; None where there is none."""
    word = system.word
    sequences = await filled(bus, f"{word}.n1.a", f"{word}.n1.b", f"{word}.n2.a")
    found = [await bus.last(log.name, subjects) for subjects in (f"{word}.n1.a", f"{word}.n1.>", f"{word}.*.a", f"{word}.>")]
    assert [0, 1, 2, 2] == [sequences.index(message.sequence) for message in found if message is not None]
    newest = found[-1]
    assert newest is not None
    assert (f"{word}.n2.a", b"2") == (newest.subject, newest.body)
    assert [None, None] == [await bus.last(log.name, f"{word}.n3.>"), await bus.last(log.name, f"{word}.n1")]


async def test_last_of_no_log_is_unavailable(system: System, bus: Bus) -> None:
    """A log that is not there is not an empty one."""
    with pytest.raises(Unavailable):
        await bus.last(f"LOG-{system.word}", ">")


async def test_purge_removes_up_to_a_sequence_under_a_filter(system: System, bus: Bus, log: LogConfig) -> None:
    """Nothing above it, nothing beside it, and it tells how many."""
    n1, n2 = f"{system.word}.n1.a", f"{system.word}.n2.a"
    sequences = await filled(bus, n1, n2, n1, n2, n1)
    assert 2 == await bus.purge(log.name, f"{system.word}.n1.>", sequences[2])
    assert [b"1", b"3", b"4"] == bodies(await read(bus, log))
    assert 0 == await bus.purge(log.name, f"{system.word}.n1.>", sequences[2])


async def test_no_sequence_comes_back(system: System, bus: Bus, log: LogConfig) -> None:
    """Not even after all messages were purged."""
    (first,) = await filled(bus, f"{system.word}.a")
    await bus.purge(log.name, ">", first)
    assert [first + 1] == await filled(bus, f"{system.word}.a")


@pytest.mark.parametrize("name", ["purge", "reader"])
async def test_what_is_asked_of_no_log_is_refused(system: System, bus: Bus, name: str) -> None:
    """The broker says no, and nothing happened."""
    log = f"LOG-{system.word}"
    with pytest.raises(Refused) as refusal:
        await (bus.purge(log, ">", 1) if name == "purge" else bus.reader(log, "r", ">", Start()))
    assert 10059 == refusal.value.code


# -- republish


async def test_a_push_follows_storage(system: System, bus: Bus, other: Bus) -> None:
    """Under the mapped subject, in log order, with the sequence and time of the log; a publisher cannot forge them."""
    word = system.word
    republish = (f"{word}.run.>", f"{word}.dlv.>")
    log = await provisioned(bus, LogConfig(name=f"LOG-{word}", subjects=(f"{word}.run.>",), first_sequence=500, republish=republish))
    async with Ear.at(other, f"{word}.dlv.n1.>") as ear:
        for subject in ("n1.a", "n2.a", "n1.b"):
            await bus.append(Outgoing(f"{word}.run.{subject}", subject.encode(), {"Virt-Id": "x", "Nats-Sequence": "9"}))
        pushes = await ear.until(2)
    assert [(f"{word}.dlv.n1.a", 500), (f"{word}.dlv.n1.b", 502)] == [(push.subject, push.sequence) for push in pushes]
    assert ["x", "x"] == [push.headers["Virt-Id"] for push in pushes]
    stored = await read(bus, log, f"{word}.run.n1.>")
    assert [message.time for message in stored] == pytest.approx([push.time for push in pushes], abs=1e-5)


# -- provisioning


async def test_provisioning_twice_changes_nothing(system: System, bus: Bus, log: LogConfig) -> None:
    """What is stored stays."""
    await filled(bus, f"{system.word}.a")
    await bus.provision([log, log])
    assert [b"0"] == bodies(await read(bus, log))


async def test_a_log_is_updated_in_place(system: System, bus: Bus, log: LogConfig) -> None:
    """New subjects and limits hold from then on; the first sequence was for its creation."""
    sequences = await filled(bus, f"{system.word}.a", f"{system.word}.a")
    await bus.provision(
        [LogConfig(name=log.name, subjects=(*log.subjects, f"{system.word}-2.>"), first_sequence=900, max_per_subject=1, max_message=100)]
    )
    assert [b"1"] == bodies(await read(bus, log))
    assert sequences[-1] + 1 == await bus.append(Outgoing(f"{system.word}-2.a", b""))
    with pytest.raises(Refused):
        await bus.append(Outgoing(f"{system.word}.a", bytes(101)))


async def test_a_duplicate_window_outlives_no_message(system: System, bus: Bus) -> None:
    """One above the log's age is refused."""
    with pytest.raises(Refused) as refusal:
        await bus.provision([LogConfig(name=f"LOG-{system.word}", subjects=(f"{system.word}.>",), max_age_s=1.0)])
    assert 10052 == refusal.value.code


async def test_two_logs_do_not_share_subjects(system: System, bus: Bus, log: LogConfig) -> None:
    """The second one is refused."""
    with pytest.raises(Refused) as refusal:
        await bus.provision([LogConfig(name=f"{log.name}-2", subjects=(f"{system.word}.*.a",))])
    assert 10065 == refusal.value.code
    with pytest.raises(Refused):
        await bus.purge(f"{log.name}-2", ">", 1)


async def test_a_log_outlives_the_broker(system: System, bus: Bus, log: LogConfig) -> None:
    """What was stored before a stop is there after the start, and sequences go on."""
    sequences = await filled(bus, f"{system.word}.a", f"{system.word}.b")
    await system.stop()
    await system.start()
    with anyio.fail_after(PATIENCE_S):
        await bus.link.up(after=1)
    assert sequences == [message.sequence for message in await read(bus, log)]
    assert [sequences[-1] + 1] == await filled(bus, f"{system.word}.a")
