"""Laws of who may do what, shown on a real broker with the credentials that production uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.logs import bucket_log, buckets, logs
from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Headers, Message, NoResponder, Outgoing, Start, Uncertain
from orchestrator.protocol import permission
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import Subjects
from orchestrator.store.kv import KeyValue

pytestmark = pytest.mark.anyio

S = Subjects()
UUID = "6f1c0000-0000-4000-8000-000000000001"
PASSWORD = "only in this test"  # noqa: S105  # as it says
USERS = {
    "n1": permission.worker(S, "n1"),
    "n2": permission.worker(S, "n2"),
    "c1": permission.coordinator(S, "c1"),
    "shop": permission.client(S, "shop", "shop"),
    "narrow": permission.client(S, "narrow", "shop", verbs=["start", "get"], direct=True),
    "eye": permission.observer(S, "eye"),
    "root": permission.admin(S, "root"),
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run all on one event loop, so that they can share a broker."""
    return "asyncio"


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Embedded]:  # noqa: ARG001  # orders the scopes
    """Give a broker that knows all kinds of users, provisioned by the admin."""
    path: Path = tmp_path_factory.mktemp("nats")
    users = [User(name=name, password=PASSWORD, permissions=permissions) for name, permissions in USERS.items()]
    async with Embedded(path, users=users) as embedded:
        async with user(embedded, "root") as root:
            await root.provision([*logs(S, created=1.0), *buckets(S)])
        yield embedded


@asynccontextmanager
async def user(broker: Embedded, name: str) -> AsyncIterator[NatsBus]:
    """Give a bus with a user's credentials and inbox."""
    async with NatsBus(broker.url, name=name, user=name, password=PASSWORD, inbox_prefix=permission.inbox(name)) as bus:
        with anyio.fail_after(5):
            await bus.link.up()
        yield bus


SILENCE_S = 0.3
"""How long to wait for what must not come; what must come has five seconds."""


async def let_through(bus: NatsBus, subjects: Iterable[str], within_s: float) -> set[str]:
    """Return the subjects on which the broker lets a request through: an answer, or the word that nobody answers, tells."""
    through: set[str] = set()

    async def ask(subject: str) -> None:
        try:
            await bus.request(subject, b"", timeout_s=within_s)
        except NoResponder:
            through.add(subject)
        except Uncertain:
            return
        through.add(subject)

    async with anyio.create_task_group() as tasks:
        for subject in subjects:
            tasks.start_soon(ask, subject)
    return through


async def may_hear(bus: NatsBus, speaker: NatsBus, subject: str, within_s: float) -> bool:
    """Tell whether what a speaker who may publishes on `subject` arrives."""
    async with bus.subscribe(subject) as queued:
        await speaker.publish(subject, b"")
        with anyio.move_on_after(within_s):
            return bool(await anext(aiter(queued)))
    return False


async def test_a_worker_can_do_its_own_work(broker: Embedded) -> None:
    """All that PROTOCOL asks of a worker goes with the credential of its node."""
    async with user(broker, "n1") as n1, user(broker, "c1") as c1, user(broker, "shop") as shop:
        run = S.run("n1", "shop", UUID, "start")
        async with n1.subscribe(S.deliveries("n1")) as pushes:
            sequence = await c1.append(Outgoing(run, b"{}"))
            assert sequence == (await anext(aiter(pushes))).sequence
        reader = await n1.reader(S.log_run, "n1", S.runs("n1"), Start(sequence=1))
        assert [run] == [message.subject for message in await reader.take(10)]
        newest = await n1.last(S.log_run, S.runs("n1"))
        assert newest is not None
        assert sequence == newest.sequence
        evt = S.evt("n1", "shop", UUID, "lifecycle.started")
        stored = await n1.append(Outgoing(evt, b"{}"))
        last = await n1.last(S.log_evt, S.node_events("n1"))
        assert last is not None
        assert stored == last.sequence
        own = await n1.reader(S.log_evt, "n1", S.evt("n1", "*", "*", "command.*"), Start())
        assert [] == await own.take(10)
        async with shop.subscribe(S.res("*", "shop", "*")) as results:
            await n1.publish(S.res("n1", "shop", "id"), b"")
            assert S.res("n1", "shop", "id") == (await anext(aiter(results))).subject
        for name, key in (("nodes", "n1"), ("leases", "n1"), ("domains", f"n1.shop.{UUID}")):
            store = KeyValue(n1, S.bucket(name), watcher="n1")
            revision = await store.update(key, b"{}", 0)
            entry = await store.get(key)
            assert entry is not None
            assert revision == entry.revision
        kept = await n1.reader(bucket_log(S.bucket("domains")), "n1", "$KV.virt_domains.n1.>", Start(last_per_subject=True))
        assert 1 == len(await kept.take(10))


async def test_a_worker_answers_and_is_found(broker: Embedded) -> None:
    """Queries of clients reach it, and discovery shows it."""

    async def answer(message: Message) -> tuple[bytes, Headers]:
        return message.subject.encode(), {}

    async with (
        user(broker, "n1") as n1,
        user(broker, "shop") as shop,
        user(broker, "eye") as eye,
        n1.serve("virt-worker", S.asks("n1"), answer, version="1.0.0", metadata={"node": "n1"}),
    ):
        ask = S.ask("n1", "shop", UUID, "get")
        assert ask.encode() == (await shop.request(ask, b"", timeout_s=2)).body
        assert b'"node":"n1"' in (await eye.request("$SRV.INFO.virt-worker", b"", timeout_s=2)).body


async def test_a_worker_can_do_nothing_of_anothers(broker: Embedded) -> None:
    """The broker drops it, so the request finds neither an answer nor the word that nobody answers."""
    subjects = [
        S.evt("n2", "shop", UUID, "lifecycle.started"),
        S.res("n2", "shop", "id"),
        S.run("n1", "shop", UUID, "start"),
        S.delivery(S.run("n1", "shop", UUID, "start")),
        S.api("shop", UUID, "start"),
        S.cmd("shop", UUID, "start"),
        S.ask("n2", "shop", UUID, "get"),
        "$KV.virt_nodes.n2",
        "$KV.virt_leases.n2",
        f"$KV.virt_domains.n2.shop.{UUID}",
        f"$KV.virt_owners.{UUID}",
        "$KV.virt_cursors.leader",
        "$JS.API.DIRECT.GET.VIRT_EVT.virt.v1.evt.n2.>",
        "$JS.API.DIRECT.GET.VIRT_EVT",
        "$JS.API.DIRECT.GET.VIRT_RUN",
        "$JS.API.STREAM.MSG.GET.VIRT_RUN",
        "$JS.API.STREAM.PURGE.VIRT_RUN",
        "$JS.API.STREAM.DELETE.VIRT_RUN",
        "$JS.API.STREAM.INFO.VIRT_RUN",
        "$JS.API.CONSUMER.CREATE.VIRT_RUN",
        "$JS.API.CONSUMER.CREATE.VIRT_RUN.n1",
        "$JS.API.CONSUMER.CREATE.VIRT_RUN.n1.virt.v1.run.n2.>",
        "$JS.API.CONSUMER.CREATE.VIRT_RUN.n1.virt.v1.run.*.>",
        "$JS.API.CONSUMER.CREATE.VIRT_RUN.n1.>",
        "$JS.API.CONSUMER.CREATE.VIRT_RUN.n2.virt.v1.run.n1.>",
        "$JS.API.CONSUMER.DELETE.VIRT_RUN.n2",
        "$JS.API.CONSUMER.MSG.NEXT.VIRT_RUN.n2",
        "$JS.API.CONSUMER.DURABLE.CREATE.VIRT_RUN.n1",
        "_INBOX.n2.x",
    ]
    async with user(broker, "n1") as n1:
        assert set() == await let_through(n1, subjects, SILENCE_S)


async def test_a_worker_hears_only_what_is_for_it(broker: Embedded) -> None:
    """Neither other nodes' orders and queries, nor events, nor anybody's answers."""
    async with user(broker, "n1") as n1, user(broker, "n2") as n2, user(broker, "c1") as c1:
        assert await may_hear(n1, c1, S.ask("n1", "shop", UUID, "get"), 5)
        assert not await may_hear(n1, c1, S.ask("n2", "shop", UUID, "get"), SILENCE_S)
        assert not await may_hear(n1, n2, S.evt("n2", "shop", UUID, "lifecycle.started"), SILENCE_S)
        async with n1.subscribe(S.deliveries("n2")) as others, n2.subscribe(S.deliveries("n2")) as own:
            await c1.append(Outgoing(S.run("n2", "shop", UUID, "stop"), b""))
            await anext(aiter(own))
            with anyio.move_on_after(SILENCE_S) as waited:
                await anext(aiter(others))
        assert waited.cancelled_caught


@pytest.mark.parametrize(
    ("name", "own", "foreign"),
    [
        (
            "shop",
            [
                S.api("shop", UUID, "start"),
                S.api("shop", "_", "domains"),
                S.api("shop", UUID, "create-xml"),
                S.ask("n1", "shop", UUID, "get"),
                f"$JS.API.DIRECT.GET.KV_virt_domains.$KV.virt_domains.*.shop.{UUID}",
                "$JS.API.CONSUMER.CREATE.VIRT_EVT.shop.virt.v1.evt.n1.shop.*.>",
            ],
            [
                S.api("other", UUID, "start"),
                S.api("_", "_", "nodes"),
                S.ask("n1", "other", UUID, "get"),
                S.run("n1", "shop", UUID, "start"),
                f"$JS.API.DIRECT.GET.KV_virt_domains.$KV.virt_domains.n1.other.{UUID}",
                "$JS.API.CONSUMER.CREATE.VIRT_EVT.shop.virt.v1.evt.n1.>",
                "$JS.API.CONSUMER.CREATE.VIRT_EVT.shop.virt.v1.evt.*.*.>",
                "$JS.API.CONSUMER.DELETE.VIRT_EVT.n1",
                f"$KV.virt_specs.shop.{UUID}",
            ],
        ),
        (
            "narrow",
            [
                S.api("shop", UUID, "start"),
                S.run("n1", "shop", UUID, "start"),
            ],
            [
                S.api("shop", UUID, "create-xml"),
                S.run("n1", "shop", UUID, "create-xml"),
            ],
        ),
        (
            "eye",
            [
                S.api("_", "_", "nodes"),
                S.api("shop", UUID, "get"),
                "$JS.API.CONSUMER.CREATE.VIRT_EVT.eye.virt.v1.evt.>",
            ],
            [
                S.api("shop", UUID, "destroy"),
                S.cmd("shop", UUID, "start"),
                "$JS.API.STREAM.PURGE.VIRT_EVT",
            ],
        ),
        (
            "root",
            [
                S.api("shop", UUID, "destroy"),
                "$JS.API.STREAM.INFO.VIRT_RUN",
            ],
            [
                "$JS.API.STREAM.DELETE.VIRT_RUN",
                S.evt("n1", "shop", UUID, "lifecycle.started"),
            ],
        ),
        (
            "c1",
            [
                S.run("n1", "shop", UUID, "start"),
                S.evt("_", "shop", UUID, "command.failed"),
                f"$KV.virt_owners.{UUID}",
                "$JS.API.CONSUMER.CREATE.VIRT_CMD.route.virt.v1.cmd.>",
            ],
            [
                S.evt("n1", "shop", UUID, "command.failed"),
                S.res("n1", "shop", "id"),
                "$KV.virt_leases.n1",
                "$JS.API.STREAM.DELETE.VIRT_CMD",
            ],
        ),
    ],
    ids=["client", "client of few verbs", "observer", "admin", "coordinator"],
)
async def test_each_user_reaches_its_own_and_no_more(broker: Embedded, name: str, own: list[str], foreign: list[str]) -> None:
    """Of clients, observers, admins and coordinators, each has its share."""
    async with user(broker, name) as bus:
        assert set(own) == await let_through(bus, own, 5)
        assert set() == await let_through(bus, foreign, SILENCE_S)


async def test_a_client_hears_its_project_only(broker: Embedded) -> None:
    """Events and results of others do not reach it, and no answer to anybody else."""
    async with user(broker, "shop") as shop, user(broker, "n1") as n1:
        for project, expected, within_s in (("shop", True, 5), ("other", False, SILENCE_S)):
            assert expected == await may_hear(shop, n1, S.evt("n1", project, UUID, "lifecycle.started"), within_s)
            assert expected == await may_hear(shop, n1, S.res("n1", project, "id"), within_s)
        async with shop.subscribe("_INBOX.>") as queued:
            await n1.last(S.log_evt, S.node_events("n1"))
            with anyio.move_on_after(SILENCE_S) as waited:
                await anext(aiter(queued))
        assert waited.cancelled_caught


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "_", "a b", "a" * 64])
def test_a_user_is_named_by_a_token(name: str) -> None:
    """A name with dots or wildcards would open other users' inboxes."""
    with pytest.raises(Invalid):
        permission.inbox(name)
