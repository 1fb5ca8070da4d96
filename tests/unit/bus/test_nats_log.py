"""Laws of logs that only a real broker can show: JetStream's own refusals, provisioning, and readers that lose their ground."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import anyio
import nats
import pytest

from orchestrator.bus import nats_reader
from orchestrator.bus.embedded import Embedded
from orchestrator.bus.logs import BUCKETS, buckets, logs
from orchestrator.bus.nats import NatsBus
from orchestrator.bus.nats_client import Connection
from orchestrator.bus.port import MAX_BATCH, Expect, LogConfig, Message, Outgoing, Refused, Stale, Start, Unavailable, Uncertain
from orchestrator.protocol.subject import Subjects
from tests.unit.bus.conftest import frozen

pytestmark = pytest.mark.anyio

LOG = LogConfig(name="L", subjects=("l.>",), first_sequence=1000, discard_new=True)


@pytest.fixture
async def bus(bus: NatsBus) -> NatsBus:
    """Give a bus on which a log is provisioned."""
    await bus.provision([LOG])
    return bus


async def api(bus: NatsBus, call: str, body: Any = None) -> dict[str, Any]:
    """Return what JetStream answers."""
    said = await bus.request(f"$JS.API.{call}", b"" if body is None else json.dumps(body).encode(), timeout_s=5)
    answer: dict[str, Any] = json.loads(said.body)
    return answer


def some(count: int) -> list[Outgoing]:
    """Return so many messages to store."""
    return [Outgoing(f"l.{number}", b"%d" % number) for number in range(count)]


async def test_a_batch_is_stored_as_one_in_order(bus: NatsBus) -> None:
    """The largest batch has the sequences that follow its fence."""
    assert 999 + MAX_BATCH == await bus.append_all(some(MAX_BATCH), Expect(0, "l.>"))
    reader = await bus.reader("L", "r", "l.>", Start())
    taken: list[Message] = []
    while portion := await reader.take(MAX_BATCH):
        taken += portion
    assert [(1000 + number, b"%d" % number) for number in range(MAX_BATCH)] == [(message.sequence, message.body) for message in taken]


async def test_of_a_batch_behind_its_fence_nothing_is_stored(bus: NatsBus) -> None:
    """The fence of the first message holds for all."""
    sequence = await bus.append(Outgoing("l.other", b""))
    with pytest.raises(Stale) as refused:
        await bus.append_all(some(20), Expect(0, "l.>"))
    assert 10071 == refused.value.code
    last = await bus.last("L", "l.>")
    assert last is not None
    assert sequence == last.sequence


async def test_a_batch_waits_where_too_many_are_open(bus: NatsBus) -> None:
    """The broker holds 50 open batches of a log; the next goes through once one of them is gone."""
    for number in range(50):
        await bus.publish("l.open", b"", {"Nats-Batch-Id": f"open-{number}", "Nats-Batch-Sequence": "1"})
    with pytest.raises(Refused) as refused:
        await bus.append_all(some(2), Expect(0, "l.>"))
    assert 10210 == refused.value.code
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.append_all, some(2), Expect(0, "l.0"))
        await bus.publish("l.open", b"", {"Nats-Batch-Id": "open-0", "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"})
    last = await bus.last("L", "l.1")
    assert last is not None
    assert b"1" == last.body


async def test_a_batch_with_a_repeated_id_is_refused_whole(bus: NatsBus) -> None:
    """A duplicate inside a batch is no silent drop."""
    await bus.append(Outgoing("l.a", b"", {"Nats-Msg-Id": "once"}))
    with pytest.raises(Refused) as refused:
        await bus.append_all([*some(2), Outgoing("l.a", b"", {"Nats-Msg-Id": "once"})], Expect(0, "l.0"))
    assert 10201 == refused.value.code
    assert await bus.last("L", "l.0") is None


async def test_what_no_log_takes_is_told_so(bus: NatsBus) -> None:
    """Neither an append nor a read waits for an answer that cannot come."""
    with pytest.raises(Unavailable, match="no log takes elsewhere"):
        await bus.append(Outgoing("elsewhere", b""))
    with pytest.raises(Unavailable, match="no log takes elsewhere"):
        await bus.append_all([Outgoing("elsewhere", b"")] * 2, Expect(0))
    with pytest.raises(Unavailable, match="log NONE cannot be read"):
        await bus.last("NONE", "elsewhere")
    with pytest.raises(Refused, match="stream not found"):
        await bus.reader("NONE", "r", "elsewhere", Start())


async def test_a_forged_place_does_not_count(bus: NatsBus) -> None:
    """Sequence and time are the broker's, whatever the publisher wrote into their headers."""
    forged = {"Nats-Sequence": "5", "Nats-Time-Stamp": "2001-01-01T00:00:00Z", "Nats-Subject": "l.x", "Status": "404"}
    sequence = await bus.append(Outgoing("l.a", b"kept", forged))
    last = await bus.last("L", "l.>")
    assert last is not None
    reader = await bus.reader("L", "r", "l.>", Start())
    (read,) = await reader.take(1)
    for message in (last, read):
        assert (sequence, "l.a", b"kept") == (message.sequence, message.subject, message.body)
        assert abs(message.time - time.time()) < 60


async def test_a_reader_whose_consumer_is_gone_says_so(bus: NatsBus) -> None:
    """It neither waits for ever nor tells that nothing lies ahead."""
    reader = await bus.reader("L", "r", "l.>", Start())
    async with anyio.create_task_group() as tasks:

        async def take() -> None:
            with anyio.fail_after(5), pytest.raises(Uncertain):
                await reader.take(1, wait_s=60)

        tasks.start_soon(take)
        while not (await api(bus, "CONSUMER.INFO.L.r"))["num_waiting"]:  # the broker tells only who asks
            await anyio.sleep(0.01)
        await api(bus, "CONSUMER.DELETE.L.r")
    with pytest.raises(Uncertain):
        await reader.take(1)
    gone = await bus.reader("L", "r", "l.>", Start())
    await api(bus, "CONSUMER.DELETE.L.r")
    with anyio.fail_after(5), pytest.raises(Uncertain):
        await gone.take(1)


async def test_messages_lost_on_the_way_break_a_reader(bus: NatsBus) -> None:
    """Another who pulls from the same consumer takes messages away; the gap shows in the consumer's numbering."""
    await bus.append_all(some(4), Expect(0, "l.>"))
    reader = await bus.reader("L", "r", "l.>", Start())
    with pytest.raises(Uncertain):  # it comes under its own subject, so it is no answer
        await bus.request("$JS.API.CONSUMER.MSG.NEXT.L.r", b"1", timeout_s=0.2)
    with pytest.raises(Uncertain, match="lost on their way"):
        await reader.take(1)


async def test_a_pull_that_is_never_answered_breaks_a_reader(broker: Embedded, bus: NatsBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for ever, whatever the broker does."""
    monkeypatch.setattr(nats_reader, "_GRACE_S", 0.2)
    monkeypatch.setattr(nats_reader, "_WAIT_S", 0.1)
    looking, waiting = await bus.reader("L", "r", "l.>", Start()), await bus.reader("L", "s", "l.>", Start())
    async with frozen(broker):
        with anyio.fail_after(5):
            with pytest.raises(Uncertain, match="lost a pull"):
                await looking.take(1)
            with pytest.raises(Uncertain, match="lost a pull"):
                await waiting.take(1, wait_s=60)


async def test_places_are_read_as_newer_brokers_write_them(bus: NatsBus) -> None:
    """With domain and account before the names of log and reader."""
    reader = await bus.reader("L", "r", "l.>", Start())
    reader._take_in(Message("l.a", b"", reply="$JS.ACK.hub.HASH.L.r.1.4711.1.1500000000000000000.0.random"))
    (read,) = await reader.take(1)
    assert (4711, 1.5e9, "") == (read.sequence, read.time, read.reply)


async def test_what_follows_streams_in_without_asking_again(bus: NatsBus) -> None:
    """One pull stands at the broker; more messages than it holds come all the same, in order."""
    reader = await bus.reader("L", "r", "l.>", Start())
    taken: list[int] = []
    async with anyio.create_task_group() as tasks:

        async def follow() -> None:
            while len(taken) < 1200:
                taken.extend(int(message.body) for message in await reader.take(7, wait_s=5))

        tasks.start_soon(follow)
        last = 0
        for first in range(0, 1200, 300):
            last = await bus.append_all([Outgoing("l.n", b"%d" % number) for number in range(first, first + 300)], Expect(last, "l.>"))
    assert list(range(1200)) == taken


async def test_looking_beside_a_standing_pull_loses_nothing(bus: NatsBus) -> None:
    """`take` with and without waiting may be mixed; a look may come too early then, and who waits gets what it missed."""
    reader = await bus.reader("L", "r", "l.>", Start())
    taken: list[bytes] = []
    for number in range(5):
        taken += [message.body for message in await reader.take(1)]
        taken += [message.body for message in await reader.take(1, wait_s=0.01)]
        await bus.append(Outgoing("l.n", b"%d" % number))
    while len(taken) < 5:
        taken += [message.body for message in await reader.take(5, wait_s=5)]
    assert [b"0", b"1", b"2", b"3", b"4"] == taken


async def test_a_look_that_was_given_up_is_not_in_the_way_of_the_next(broker: Embedded, bus: NatsBus) -> None:
    """Neither of a wait nor of another look."""
    reader = await bus.reader("L", "r", "l.>", Start())
    for wait_s in (None, 5.0):
        async with frozen(broker):
            with anyio.move_on_after(0.05):
                await reader.take(1)
        await bus.append(Outgoing("l.n", b"1"))
        assert [b"1"] == [message.body for message in await reader.take(1, wait_s=wait_s)]


async def test_a_reader_left_alone_leaves_nothing_behind(bus: NatsBus) -> None:
    """Nobody closes a reader, so its inbox goes with it."""
    subscriptions = cast(Connection, bus._channel.connection)._subs
    before = len(subscriptions)
    reader = await bus.reader("L", "r", "l.>", Start())
    await reader.take(1)
    assert before < len(subscriptions)
    del reader
    with anyio.fail_after(5):
        while before < len(subscriptions):  # nobody is told
            await anyio.sleep(0.01)


async def test_the_brokers_clock_is_learnt(broker: Embedded) -> None:
    """The difference to a clock that is an hour slow is an hour."""
    async with NatsBus(broker.url, name="test", clock=lambda: time.time() - 3600) as slow:
        await slow.link.up()
        assert 0.0 == slow.offset_s
        await slow.provision([LOG])
        reader = await slow.reader("L", "r", "l.>", Start())
        assert 3600 == pytest.approx(slow.offset_s, abs=1)
        assert time.time() == pytest.approx(reader.broker_time, abs=1)


async def test_a_purge_up_to_nothing_removes_nothing(bus: NatsBus) -> None:
    """The broker takes sequence 0 for all."""
    await bus.append(Outgoing("l.a", b""))
    assert [0, 0, 0] == [await bus.purge("L", "l.>", up_to) for up_to in (-1, 0, 999)]
    assert 1 == await bus.purge("L", "l.>", 1000)


async def test_provisioning_again_changes_nothing_and_keeps_what_operators_set(bus: NatsBus) -> None:
    """Fields that a log does not speak of stay as they are; sequences go on; stored messages stay."""
    await bus.append(Outgoing("l.a", b""))
    found = (await api(bus, "STREAM.INFO.L"))["config"]
    await api(bus, "STREAM.UPDATE.L", {**found, "description": "an operator's", "max_msgs": 5000})
    before = (await api(bus, "STREAM.INFO.L"))["config"]
    await bus.provision([LogConfig(name="L", subjects=("l.>",), first_sequence=5, discard_new=True)])
    assert before == (await api(bus, "STREAM.INFO.L"))["config"]
    await bus.provision([LogConfig(name="L", subjects=("l.>",), first_sequence=5, discard_new=True, max_age_s=3600)])
    after = (await api(bus, "STREAM.INFO.L"))["config"]
    assert {**before, "max_age": 3600 * 10**9} == after
    assert 1001 == await bus.append(Outgoing("l.a", b""))


async def test_an_installation_is_provisioned_whole(broker: Embedded) -> None:
    """Logs and buckets have what the wire contract says of them, twice in a row, under any prefix."""
    subjects = Subjects("shop")
    async with NatsBus(broker.url, name="test") as bus:
        await bus.link.up()
        for _ in range(2):
            await bus.provision([*logs(subjects, created=1_700_000_000.5), *buckets(subjects)])
        run = (await api(bus, "STREAM.INFO.SHOP_RUN"))["config"]
        leases = (await api(bus, "STREAM.INFO.KV_shop_leases"))["config"]
        names = {stream["config"]["name"] for stream in (await api(bus, "STREAM.LIST"))["streams"]}
        pushed: list[Message] = []
        async with bus.listen("shop.v1.dlv.n1.>", pushed.append), bus.subscribe("shop.v1.dlv.n1.>") as queued:
            sequence = await bus.append(Outgoing(subjects.run("n1", "p", "u", "start"), b"{}"))
            await anext(aiter(queued))
    assert {"SHOP_CMD", "SHOP_RUN", "SHOP_EVT"} | {f"KV_shop_{name}" for name in BUCKETS} == names
    expected = {
        "subjects": ["shop.v1.run.>"],
        "discard": "new",
        "retention": "limits",
        "max_age": 0,
        "first_seq": 1_700_000_000_500_000,
        "duplicate_window": 100_000_000,
        "max_consumers": 100_000,
        "allow_direct": True,
        "allow_atomic": True,
        "republish": {"src": "shop.v1.run.>", "dest": "shop.v1.dlv.>"},
    }
    assert expected == {field: run[field] for field in expected}
    expected = {
        "subjects": ["$KV.shop_leases.>"],
        "max_msgs_per_subject": 1,
        "max_age": 15 * 10**9,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": 60 * 10**9,
        "max_consumers": 100_000,
    }
    assert expected == {field: leases[field] for field in expected}
    assert (1_700_000_000_500_000, sequence) == (sequence, pushed[0].sequence)
    assert abs(pushed[0].time - time.time()) < 60


async def test_a_bucket_is_one_to_other_clients(broker: Embedded, bus: NatsBus) -> None:
    """nats-py's own key-value client reads, writes, deletes and purges in it."""
    await bus.provision(buckets(Subjects()))
    client = await nats.connect(broker.url)
    try:
        bucket = await client.jetstream().key_value("virt_specs")
        revision = await bucket.create("p.u", b"1")
        await bucket.update("p.u", b"2", revision)
        assert b"2" == (await bucket.get("p.u")).value
        await bucket.delete("p.u")
        await bucket.purge("p.u")
        assert "virt_specs" == (await bucket.status()).bucket
    finally:
        await client.close()


async def test_a_broker_without_jetstream_is_told_so(broker: Embedded, bus: NatsBus) -> None:
    """The sentence says what to do."""
    configuration = broker._path("nats.conf")
    plain = {key: value for key, value in json.loads(configuration.read_text()).items() if key != "jetstream"}
    session = bus.link.session
    await broker.stop()
    broker._configuration = lambda: {**plain, "port": int(broker.url.rpartition(":")[2])}  # type: ignore[method-assign]
    await broker.start()
    await bus.link.up(session)
    with pytest.raises(Unavailable, match="the broker has no JetStream: start nats-server with -js"):
        await bus.provision([LOG])
