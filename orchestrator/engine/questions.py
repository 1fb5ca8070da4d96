"""What is read through `api`: queries, passed on to the domain's node, and lists, answered from the mirror."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import msgspec

from orchestrator.bus.port import Bus, BusError, Headers, Message, NoResponder, Uncertain
from orchestrator.control.lease import counts
from orchestrator.control.paging import page
from orchestrator.engine.history import History
from orchestrator.engine.ledgers import Ledgers
from orchestrator.engine.locator import Locator
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.pace import Pace
from orchestrator.engine.recent import Recent
from orchestrator.protocol import token
from orchestrator.protocol.command import HEADER_ERROR, HEADER_ERROR_CODE, Command, answer, decode_command, refusal
from orchestrator.protocol.error import DeadlineExceeded, Invalid, NodeUnavailable, NotFound, WireError
from orchestrator.protocol.subject import NONE, Addressed, Subjects
from orchestrator.protocol.verb import CommandIdArgs, ListArgs, Verb

Answer = tuple[bytes, Headers]


class Questions:
    """Answers queries and fleet verbs. `monotonic` gives the seconds of the loop's own clock."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        mirror: Mirror,
        locator: Locator,
        history: History,
        ledgers: Ledgers,
        recent: Recent,
        *,
        pace: Pace,
        monotonic: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._mirror = mirror
        self._locator = locator
        self._history = history
        self._ledgers = ledgers
        self._recent = recent
        self._pace = pace
        self._monotonic = monotonic

    async def answer(self, addressed: Addressed, verb: Verb, message: Message) -> Answer:
        """Answer one question; a refusal is an answer too."""
        try:
            command = decode_command(verb, message.body, {})
            with anyio.move_on_after(min(self._pace.ask, command.timeout_s)):
                return await self._answered(addressed, command, message)
            raise DeadlineExceeded("no answer in time")
        except WireError as error:
            return refusal(error)
        except BusError as error:
            return refusal(NodeUnavailable(f"the broker does not answer: {error}"))

    async def _answered(self, addressed: Addressed, command: Command, message: Message) -> Answer:
        args = command.args
        if command.verb.kind == "query":
            return await self._query(addressed, command, message)
        if isinstance(args, CommandIdArgs):
            return answer({"command": await self._recorded(addressed, args.id)}), {}
        if addressed.domain != NONE:
            raise Invalid(f"subject: {addressed.verb} is asked of {NONE} in the domain's place, not of {addressed.domain!r}")
        assert isinstance(args, ListArgs)  # noqa: S101  the registry has no other fleet verbs
        rows = await (self._nodes(addressed) if addressed.verb == "nodes" else self._domains(addressed))
        return answer(page(addressed.verb, rows, limit=args.limit, after=args.after)), {}

    async def _query(self, addressed: Addressed, command: Command, message: Message) -> Answer:
        project = token.project(addressed.project)
        node, uuid = await self._node_of(project, token.domain(addressed.domain))
        link = self._bus.link
        if counts(living=self._mirror.living(node), session_s=self._monotonic() - link.since):
            raise NodeUnavailable(f"node {node} does not answer: its lease has run out")
        subject = self._subjects.ask(node, project, uuid, addressed.verb)
        try:
            got = await self._bus.request(subject, message.body, timeout_s=min(self._pace.ask, command.timeout_s))
        except NoResponder as error:
            raise NodeUnavailable(f"node {node} does not answer") from error
        except Uncertain as error:
            raise DeadlineExceeded(f"node {node} did not answer in time") from error
        return got.body, {name: got.headers[name] for name in (HEADER_ERROR, HEADER_ERROR_CODE) if name in got.headers}

    async def _node_of(self, project: str, domain: str) -> tuple[str, str]:
        uuid = domain if token.is_uuid(domain) else await self._locator.resolve(project, domain)
        place = None if uuid is None else await self._locator.find(project, uuid)
        if uuid is None or place is None:
            raise NotFound(f"project {project} has no domain {domain}")
        return place.node, uuid

    async def _nodes(self, addressed: Addressed) -> list[tuple[str, Any]]:
        if addressed.project != NONE:
            raise Invalid(f"subject: nodes belong to no project; ask with {NONE} in the project's place")
        await self._mirror.nodes.caught_up()
        return [(name, row.value) for name, row in self._mirror.nodes.rows.items()]

    async def _domains(self, addressed: Addressed) -> list[tuple[str, Any]]:
        project = addressed.project if addressed.project == NONE else token.project(addressed.project)
        await self._mirror.domains.caught_up()
        seen = (row.value for row in self._mirror.domains.rows.values())
        return [(f"{one.uuid}.{one.node}", one) for one in seen if project in (NONE, one.project)]

    async def _recorded(self, addressed: Addressed, id: str) -> Any:
        """Return what is recorded of a command: known here, else by its domain's node, else by any node, else in the log of events."""
        project = token.project(addressed.project)
        known = self._recent.find(project, id)
        if known is not None and known.result is not None:
            return _ended(project, known.node or NONE, id, known.result)
        found = await self._asked(addressed, project, id, None if known is None else known.node)
        if found is not None:
            return found
        uuid = addressed.domain.lower() if token.is_uuid(addressed.domain) else NONE
        terminal = (await self._history.find(project, uuid, id)).terminal
        if terminal is None:
            raise NotFound(f"no command {id!r} is recorded in project {project}")
        return _ended(project, terminal.node, id, terminal.result)

    async def _asked(self, addressed: Addressed, project: str, id: str, node: str | None) -> Any:
        domain = addressed.domain if addressed.domain == NONE else token.domain(addressed.domain)
        if node is None and domain != NONE:
            try:
                node, _ = await self._node_of(project, domain)
            except WireError:
                node = None  # it may be gone, its commands are not
        entry = None if node in (None, NONE) else await self._ledgers.ask(node or NONE, project, NONE, id)
        return entry or await self._ledgers.ask_all(project, id)


def _ended(project: str, node: str, id: str, result: bytes) -> dict[str, Any]:
    """Return a command that ended in the form in which ledgers tell it."""
    return {"id": id, "project": project, "node": node, "phase": "ended", "result": msgspec.Raw(result)}
