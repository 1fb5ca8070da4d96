"""What other services import: send a command and await it, ask the fleet, follow events.

    async with Client.connect("nats://127.0.0.1:4222") as vm:
        await vm.start("web1")
        await vm.wait("web1", state="running", timeout=30)

A request that was lost because a coordinator or the broker died is sent again with the same id,
so it has its effect once (PROTOCOL §4). What goes wrong is raised as the error of its code (`NotFound`, `Conflict`, …),
except that the broker cannot be reached: that is a `BusError`. Whatever waits here may be cancelled; that ends the
waiting, not the command (`Client.cancel` does). It runs under `asyncio.run` as well as under anyio on asyncio.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

import anyio
import msgspec

from orchestrator.bus.port import Bus, BusError, Full, Outgoing, Unavailable, Uncertain
from orchestrator.feed import Feed, Wanted
from orchestrator.protocol import domainxml, extension, token
from orchestrator.protocol.command import Body, Condition, Result
from orchestrator.protocol.domain import Observed, State
from orchestrator.protocol.error import (
    AlreadyExists,
    Busy,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Denied,
    HypervisorRefused,
    Internal,
    Invalid,
    NoCapacity,
    NodeUnavailable,
    NotFound,
    Unsupported,
    WireError,
    raised,
)
from orchestrator.protocol.node import Node
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.token import DEFAULT_PROJECT
from orchestrator.protocol.verb import VERBS, Verb, find
from orchestrator.questions import Questions, is_token, place
from orchestrator.requests import PAUSE_S, UNEXPLAINED, Reply, Requests, decoded, encoded
from orchestrator.verbs import Arguments, Options, Verbs
from orchestrator.waiting import States, Watch, states

if TYPE_CHECKING:
    from orchestrator.bus.reach import Server

PATIENCE_S = 5.0
"""Seconds for which a request is offered while nobody takes it."""

MARGIN_S = 5.0
"""Seconds beyond a command's own time in which its answer may come."""

CANCEL_S = 60.0
"""Seconds that a cancel has."""

REPEAT_S = 2.0
"""Seconds after which an answer that did not come may be lost, with the coordinator that owed it."""


class Client(Verbs, Questions):
    """Speaks to one installation, over an entered bus. `Client.connect` makes both.

    A domain is given by its UUID or name, and stands in `project` unless the call names another.

    project: the project meant where a call names none.
    reader: name of its reader where the broker holds its user to one, then it has one feed at a time; else each feed's is its own.
    patience_s: how long a request is offered while nobody takes it. repeat_s: after how long without an answer it is sent again,
    twice as long each time. new_id: gives the id of a command that the caller gave none.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects | None = None,
        *,
        project: str = DEFAULT_PROJECT,
        reader: str = "",
        patience_s: float = PATIENCE_S,
        repeat_s: float = REPEAT_S,
        new_id: Callable[[], str] = lambda: os.urandom(12).hex(),
        monotonic: Callable[[], float] = anyio.current_time,
    ) -> None:
        super().__init__(Requests(bus, patience_s, repeat_s, monotonic), subjects or Subjects(), project)
        self._bus = bus
        self._reader = reader
        self._patience_s = patience_s
        self._new_id = new_id
        self._monotonic = monotonic

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        server: Server,
        *,
        project: str = DEFAULT_PROJECT,
        prefix: str = "virt",
        creds: str | Path | None = None,
        wait: bool = False,
        reader: str = "",
    ) -> AsyncIterator[Client]:
        """Connect to a broker for as long as the context lasts.

        server: its URL, several separated by commas; or a `nats.aio.client.Client` that the program has connected, which is used
        beside whatever else it is used for, and never closed.
        project: the project meant where a call names none. creds: path of a NATS credentials file.
        wait: keep trying while the broker is away. reader: as for the class.
        Raises `orchestrator.bus.port.Unavailable` within 3 s if it cannot be reached and `wait` is False.
        """
        from importlib.metadata import entry_points  # noqa: PLC0415  costs 30 ms; here for the verbs of one's own

        from orchestrator.bus.reach import arrive, bus_at  # noqa: PLC0415  costs 0.2 s, and a client given a bus does without

        extension.enlist(entry_points(group=extension.GROUP))
        subjects = Subjects(prefix)
        async with bus_at(server, name="virtbus-client", creds=Path(creds) if creds else None) as bus:
            await arrive(bus, wait=wait)
            yield cls(bus, subjects, project=project, reader=reader)

    async def call(self, domain: str, verb: str, args: Arguments = None, **options: Unpack[Options]) -> Result:
        """Send the command `verb`, await its end and return its result; for verbs of one's own, and where the verb is a variable.

        Raises the error that it ended with; `outcome` there says what is known of the effect.
        """
        return _succeeded(await self.attempt(domain, verb, args, **options))

    async def attempt(self, domain: str, verb: str, args: Arguments = None, **options: Unpack[Options]) -> Result:
        """Like `call`, but return the result of a failed command too. Raises only where the command has no result."""
        entry = _known(verb)
        project = self._owner(options.get("project"))
        place, body = await self._addressed(project, domain, entry, self._body(args, options))
        return await self._sent(project, place, verb, body, body.timeout_s or entry.timeout_s)

    async def post(self, domain: str, verb: str, args: Arguments = None, **options: Unpack[Options]) -> str:
        """Leave a command in the log and return its id; events tell its end.

        Raises `Busy` if the log is full, and the bus's `Uncertain` or `Unavailable` if it could not be stored within the patience.
        """
        project = self._owner(options.get("project"))
        place, body = await self._addressed(project, domain, _known(verb), self._body(args, options))
        message = Outgoing(self._subjects.cmd(project, place, verb), encoded(body))
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
            await anyio.sleep(PAUSE_S)

    async def cancel(self, id: str, *, domain: str | None = None, actor: str | None = None, project: str | None = None) -> Result:
        """Cancel the command `id`, also a job that runs: return once it has ended `cancelled` (`changed` is False where it had before).

        domain: its domain, which need not be searched for then. actor: as for all commands.
        Raises `Conflict` where it can be cancelled no more, since it was begun or has ended otherwise, `NotFound`, and `DeadlineExceeded`
        for a job that has not stopped within a minute.
        """
        body = Body(id=token.command_id(self._new_id()), args={"id": token.command_id(id, own=True)}, actor=actor)
        return _succeeded(await self._sent(self._owner(project), place(domain), "cancel", body, CANCEL_S))

    @overload
    async def wait(
        self, domain: str, *, state: State | Collection[State], timeout: float | None = None, project: str | None = None  # noqa: ASYNC109
    ) -> Observed: ...

    @overload
    async def wait(
        self, domain: str, *, state: None, timeout: float | None = None, project: str | None = None  # noqa: ASYNC109
    ) -> None: ...

    async def wait(
        self, domain: str, *, state: States, timeout: float | None = None, project: str | None = None  # noqa: ASYNC109  the message says more
    ) -> Observed | None:
        """Wait until a domain is in a state, and return it as it is then. It is subscribed to before it is looked at, so nothing slips by.

        state: one, or several of which any will do: `running paused shutoff …`; None: until it is gone, then None is returned.
        A domain that is not there yet is waited for. timeout: seconds, else for ever.
        Raises `DeadlineExceeded` (the message says what it is in then), and what `get` raises but `NotFound`.
        """
        owner = self._owner(project)
        watch = Watch(self._bus, self._subjects, owner, domain, lambda: self.get(domain, project=owner))
        return await watch.until(states(state), timeout)

    def events(
        self,
        *,
        domain: str | None = None,
        project: str | None = None,
        every: bool = False,
        node: str | None = None,
        kinds: Collection[str] = (),
        since: float | None = None,
        after: int | None = None,
    ) -> Feed:
        """Follow events as they are stored, in their order, through broken sessions: none missed, none twice.

        Iterate over it: `async for event in vm.events(domain="web1")` gives values of `orchestrator.event`, for `match`. It has no end.

        domain: UUID or name. project: as for all calls; every: of every project, and what belongs to none: nodes, networks, pools.
        node: only of this one. kinds: `lifecycle`, `lifecycle.started`, `command`, … (none: all).
        since: from this Unix second; after: from behind this sequence of the log (`Feed.sequence`); neither: what comes from now on.
        Raises `Invalid` for what is no token, and for kinds that belong to no project unless `every` is asked for.
        """
        wanted = Wanted(project=None if every else self._owner(project), node=node, domain=domain, kinds=tuple(kinds))
        return Feed(self._bus, self._subjects, wanted, name=self._reader or f"client-{os.urandom(8).hex()}", since=since, after=after)

    def _body(self, args: Arguments, options: Options) -> Body:
        plain = {} if args is None else dict(args) if isinstance(args, Mapping) else msgspec.to_builtins(args)
        return Body(
            id=token.command_id(options.get("id") or self._new_id()),
            args=plain,
            timeout_s=options.get("timeout"),
            condition=options.get("condition"),
            actor=options.get("actor"),
        )

    async def _addressed(self, project: str, domain: str, verb: Verb, body: Body) -> tuple[str, Body]:
        """Return the domain's token, and the body completed where the name cannot be one."""
        if is_token(domain):
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

    async def _sent(self, project: str, place: str, verb: str, body: Body, seconds: float) -> Result:
        """Send a command and return how it ended; raise where the answer is none about its end."""
        raw = await self._requests.answer(self._subjects.api(project, place, verb), encoded(body), seconds + MARGIN_S)
        reply = decoded(raw, Reply)
        if not reply.ok and (reply.id is None or not reply.final):
            raise raised(reply.error)
        return decoded(raw, Result)

def _known(verb: str) -> Verb:
    """Return a verb's entry, also of one that an installed package brings; raise `Invalid` if there is none."""
    if verb not in VERBS:
        from importlib.metadata import entry_points  # noqa: PLC0415  reads the disk, for verbs of one's own only

        extension.enlist(entry_points(group=extension.GROUP))
    return find(verb, "verb")


def _succeeded(result: Result) -> Result:
    if not result.ok:
        raise raised(result.error or UNEXPLAINED)
    return result


__all__ = [
    "CANCEL_S",
    "MARGIN_S",
    "PATIENCE_S",
    "REPEAT_S",
    "AlreadyExists",
    "Arguments",
    "BusError",
    "Busy",
    "Cancelled",
    "Client",
    "Condition",
    "Conflict",
    "DeadlineExceeded",
    "Denied",
    "Feed",
    "HypervisorRefused",
    "Internal",
    "Invalid",
    "NoCapacity",
    "Node",
    "NodeUnavailable",
    "NotFound",
    "Observed",
    "Options",
    "Result",
    "Unavailable",
    "Uncertain",
    "Unsupported",
    "Verbs",
    "WireError",
]
