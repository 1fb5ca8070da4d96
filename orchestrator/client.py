"""What other services import: send a command and await it, ask the fleet, follow events.

    async with Client.connect("nats://127.0.0.1:4222") as client:
        result = await client.call("default", "web1", "start")

A request that was lost because a coordinator or the broker died is sent again with the same id,
so it has its effect once (PROTOCOL §4). What goes wrong is raised as an error of `orchestrator.protocol.error`,
except that the broker cannot be reached: that is an `orchestrator.bus.port.BusError`.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import anyio
import msgspec

from orchestrator.bus.port import Bus, Full, NoResponder, Outgoing, Unavailable, Uncertain
from orchestrator.feed import Feed, Wanted
from orchestrator.protocol import codec, domainxml, token
from orchestrator.protocol.command import Body, Condition, Result
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Busy, Conflict, DeadlineExceeded, Failure, Internal, Invalid, NodeUnavailable, NotFound, raised
from orchestrator.protocol.node import Node
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.token import NONE
from orchestrator.protocol.verb import Args, Verb, find

PATIENCE_S = 5.0
"""Seconds for which a request is offered while nobody takes it."""

MARGIN_S = 5.0
"""Seconds beyond a command's own time in which its answer may come."""

REPEAT_S = 2.0
"""Seconds after which an answer that did not come may be lost, with the coordinator that owed it."""

QUERY_S = 10.0
"""Seconds that a question may take."""

_PAUSE_S = 0.2
_NOBODY = "no coordinator answers; is one running? 'virtbus coordinator' starts one"
_UNEXPLAINED = Failure(code="internal", message="the answer is no, and gives no reason")

T = TypeVar("T")
Arguments = Args | Mapping[str, Any] | None


class Options(TypedDict, total=False):
    """What may go with a command.

    timeout_s: seconds that it has, else the verb's own default. id: its idempotency key, else a fresh one.
    condition: what must hold when its turn comes. actor: who asked.
    """

    timeout_s: float | None
    id: str | None
    condition: Condition | None
    actor: str | None


class _Reply(msgspec.Struct, frozen=True):
    """The part that every answer has; a bare refusal has no id."""

    ok: bool
    id: str | None = None
    final: bool = True
    error: Failure = _UNEXPLAINED
    result: dict[str, Any] = {}


class _Page(msgspec.Struct, frozen=True):
    """A page of a list."""

    nodes: list[Node] = []
    domains: list[Observed] = []
    next: str | None = None


class _Requests:
    """Requests that outlive what answers them: sent again, with the same bytes, whenever the one before may be lost."""

    def __init__(self, bus: Bus, patience_s: float, repeat_s: float, monotonic: Callable[[], float]) -> None:
        self._bus = bus
        self._patience_s = patience_s
        self._repeat_s = repeat_s
        self._monotonic = monotonic

    async def question(self, subject: str, body: bytes, silence: str) -> dict[str, Any]:
        """Return the `result` of the answer; raises the error in it, and as `answer`."""
        reply = _decoded(await self.answer(subject, body, QUERY_S, silence), _Reply)
        if not reply.ok:
            raise raised(reply.error)
        return reply.result

    async def answer(self, subject: str, body: bytes, timeout_s: float, silence: str) -> bytes:
        """Return the answer's body.

        Nobody took it within the patience: `NodeUnavailable` with `silence` as the reason, or `Unavailable` if the broker is away.
        Somebody may have taken it, and no answer came in time: `DeadlineExceeded`, outcome unknown.
        """
        began = self._monotonic()
        repeat_s, taken = self._repeat_s, False
        while True:
            left = began + timeout_s - self._monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"no answer came within {timeout_s:g} s", outcome="unknown" if taken else "none")
            try:
                return await self._once(subject, body, min(left, repeat_s))
            except Uncertain:
                repeat_s, taken = repeat_s * 2, True
            except (NoResponder, Unavailable) as error:
                if not taken and self._monotonic() - began > self._patience_s:
                    raise _given_up(error, silence) from error
            await anyio.sleep(_PAUSE_S)

    async def _once(self, subject: str, body: bytes, wait_s: float) -> bytes:
        """Request once; the bus raises `Uncertain` as soon as the session ends, since the answer cannot come any more."""
        if not self._bus.link.connected:
            raise Unavailable("the broker is away")
        return (await self._bus.request(subject, body, timeout_s=wait_s)).body


class Client:
    """Speaks to one installation over an entered bus.

    reader: name of its reader where the broker holds its user to one, then it has one feed at a time; else each feed's is its own.
    patience_s: how long a request is offered while nobody takes it. repeat_s: after how long without an answer it is sent again,
    twice as long each time. new_id: gives the id of a command that the caller gave none.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects | None = None,
        *,
        reader: str = "",
        patience_s: float = PATIENCE_S,
        repeat_s: float = REPEAT_S,
        new_id: Callable[[], str] = lambda: os.urandom(12).hex(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._subjects = subjects or Subjects()
        self._reader = reader
        self._requests = _Requests(bus, patience_s, repeat_s, monotonic)
        self._patience_s = patience_s
        self._new_id = new_id
        self._monotonic = monotonic

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, *, prefix: str = "virt", creds: str | None = None, wait: bool = False, reader: str = ""
    ) -> AsyncIterator[Client]:
        """Connect to the broker at `url` for as long as the context lasts.

        creds: path of a NATS credentials file. wait: keep trying while the broker is away. reader: as for the class.
        Raises `orchestrator.bus.port.Unavailable` within 3 s if it cannot be reached and `wait` is False.
        """
        from orchestrator.bus.reach import arrive, bus_at  # noqa: PLC0415  costs 0.2 s, and a client given a bus does without

        subjects = Subjects(prefix)
        async with bus_at(url, name="virtbus-client", creds=Path(creds) if creds else None) as bus:
            await arrive(bus, wait=wait)
            yield cls(bus, subjects, reader=reader)

    async def call(self, project: str, domain: str, verb: str, args: Arguments = None, **options: Unpack[Options]) -> Result:
        """Send a command, await its end and return its result. domain: UUID or name.

        Raises the error that it ended with; `outcome` there says what is known of the effect.
        """
        result = await self.attempt(project, domain, verb, args, **options)
        if not result.ok:
            raise raised(result.error or _UNEXPLAINED)
        return result

    async def attempt(self, project: str, domain: str, verb: str, args: Arguments = None, **options: Unpack[Options]) -> Result:
        """Like `call`, but return the result of a failed command too. Raises only where the command has no result."""
        entry = find(verb, "verb")
        place, body = await self._addressed(project, domain, entry, self._body(args, options))
        seconds = (body.timeout_s or entry.timeout_s) + MARGIN_S
        raw = await self._requests.answer(self._subjects.api(project, place, verb), _encoded(body), seconds, _NOBODY)
        reply = _decoded(raw, _Reply)
        if not reply.ok and (reply.id is None or not reply.final):
            raise raised(reply.error)
        return _decoded(raw, Result)

    async def post(self, project: str, domain: str, verb: str, args: Arguments = None, **options: Unpack[Options]) -> str:
        """Leave a command in the log and return its id; events tell its end.

        Raises `Busy` if the log is full, and the bus's `Uncertain` or `Unavailable` if it could not be stored within the patience.
        """
        place, body = await self._addressed(project, domain, find(verb, "verb"), self._body(args, options))
        message = Outgoing(self._subjects.cmd(project, place, verb), _encoded(body))
        began = self._monotonic()
        while True:
            try:
                await self._bus.append(message)
                return body.id or ""
            except Full as error:
                raise Busy("the log of commands is full; nothing was stored") from error
            except (Uncertain, Unavailable):
                # whether it was stored is unknown; under its id a second copy has no second effect
                if self._monotonic() - began > self._patience_s:
                    raise
            await anyio.sleep(_PAUSE_S)

    async def nodes(self) -> list[Node]:
        """Return all nodes that ever announced themselves."""
        return [node for page in await self._pages(NONE, "nodes") for node in page.nodes]

    async def domains(self, project: str | None = None) -> list[Observed]:
        """Return the domains of a project, or of all projects."""
        owner = NONE if project is None else token.project(project)
        return [domain for page in await self._pages(owner, "domains") for domain in page.domains]

    async def get(self, project: str, domain: str) -> Observed:
        """Return a domain's observed state. Raises `NotFound`, or `Conflict` if the name is not unique."""
        token.project(project)
        if not _is_token(domain):
            return await self._named(project, domain)
        result = await self._requests.question(self._subjects.api(project, token.domain(domain), "get"), b"", _NOBODY)
        return _fitting(result.get("domain"), Observed)

    async def xml(self, project: str, domain: str) -> str:
        """Return a domain's XML, as its node's hypervisor has it."""
        return _fitting(await self._on_node(project, domain, "xml"), str)

    async def stats(self, project: str, domain: str) -> dict[str, Any]:
        """Return a domain's figures under libvirt's bulk-stats names."""
        return _fitting(await self._on_node(project, domain, "stats"), dict[str, Any])

    async def command(self, project: str, id: str, *, domain: str | None = None) -> dict[str, Any]:
        """Return what is recorded of a command. Raises `NotFound`."""
        place = NONE if domain is None else token.domain(domain)
        subject = self._subjects.api(token.project(project), place, "command")
        result = await self._requests.question(subject, _encoded(Body(args={"id": token.command_id(id)})), _NOBODY)
        return _fitting(result.get("command"), dict[str, Any])

    def events(
        self,
        *,
        project: str | None = None,
        node: str | None = None,
        domain: str | None = None,
        kinds: tuple[str, ...] = (),
        since: float | None = None,
        after: int | None = None,
    ) -> Feed:
        """Follow events as they are stored, in their order, through broken sessions: none missed, none twice.

        domain: UUID or name. kinds: `lifecycle`, `lifecycle.started`, `command`, … (none: all).
        since: from this Unix second; after: from behind this sequence of the log (`Feed.sequence`); neither: what comes from now on.
        """
        wanted = Wanted(project=project, node=node, domain=domain, kinds=kinds)
        return Feed(self._bus, self._subjects, wanted, name=self._reader or f"client-{os.urandom(8).hex()}", since=since, after=after)

    def _body(self, args: Arguments, options: Options) -> Body:
        plain = {} if args is None else dict(args) if isinstance(args, Mapping) else msgspec.to_builtins(args)
        return Body(
            id=token.command_id(options.get("id") or self._new_id()),
            args=plain,
            timeout_s=options.get("timeout_s"),
            condition=options.get("condition"),
            actor=options.get("actor"),
        )

    async def _addressed(self, project: str, domain: str, verb: Verb, body: Body) -> tuple[str, Body]:
        """Return the domain's token, and the body completed where the name cannot be one."""
        token.project(project)
        if _is_token(domain):
            return token.domain(domain), body
        try:
            uuid = (await self._named(project, domain)).uuid
        except NotFound:
            if not verb.creates:
                raise
            uuid = token.derived_uuid(project, body.id or "")
        if not verb.creates:
            return uuid, body
        xml = str(body.args.get("xml", ""))
        uuid = domainxml.identify(xml).uuid or uuid
        return uuid, msgspec.structs.replace(body, args={**body.args, "xml": domainxml.complete(xml, name=domain, uuid=uuid)})

    async def _named(self, project: str, name: str) -> Observed:
        """Return the domain whose name is no token: it is looked for in the list."""
        found = [domain for domain in await self.domains(project) if domain.name == name]
        if not found:
            raise NotFound(f"project {project} has no domain called {name!r}")
        if len(found) > 1:
            raise Conflict(f"{len(found)} domains are called {name!r}: {', '.join(one.uuid for one in found)}; use a UUID")
        return found[0]

    async def _pages(self, owner: str, verb: str) -> list[_Page]:
        pages: list[_Page] = []
        after = ""
        while True:
            body = _encoded(Body(args={"after": after}))
            page = _fitting(await self._requests.question(self._subjects.api(owner, NONE, verb), body, _NOBODY), _Page)
            pages.append(page)
            if not page.next:
                return pages
            after = page.next

    async def _on_node(self, project: str, domain: str, query: str) -> Any:
        found = await self.get(project, domain)
        subject = self._subjects.ask(found.node, project, found.uuid, query)
        return (await self._requests.question(subject, b"", f"node {found.node} does not answer")).get(query)


def _given_up(error: NoResponder | Unavailable, silence: str) -> Exception:
    return error if isinstance(error, Unavailable) else NodeUnavailable(silence)


def _is_token(domain: str) -> bool:
    return token.is_uuid(domain) or token.is_word(domain)


def _encoded(body: Body) -> bytes:
    raw = codec.encode(body)
    if len(raw) > codec.MAX_COMMAND:
        raise Invalid(f"the command has {len(raw)} bytes; at most {codec.MAX_COMMAND} are accepted")
    return raw


def _decoded(raw: bytes, kind: type[T]) -> T:
    try:
        return codec.decode(raw, kind)
    except Invalid as error:
        raise Internal(f"the answer cannot be read ({error.message})", outcome="unknown") from error


def _fitting(value: Any, kind: type[T]) -> T:
    try:
        return codec.convert(value, kind, field="result")
    except Invalid as error:
        raise Internal(f"the answer cannot be read ({error.message})", outcome="unknown") from error
