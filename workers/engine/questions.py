"""Queries to this node: read only, answered from the hypervisor itself and, for commands, from the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.bus.port import Headers, Message
from orchestrator.log import get_logger
from orchestrator.protocol import codec, token
from orchestrator.protocol.command import answer, decode_command, refusal
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Busy, Conflict, DeadlineExceeded, Invalid, NodeUnavailable, NotFound, WireError
from orchestrator.protocol.moment import timestamp
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import CommandIdArgs, find
from workers.domain.observe import observed
from workers.drivers.port import DriverError, Sighting
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.looks import Crowded, Looks, Silent
from workers.engine.perform import translated
from workers.journal.port import Journal

ANSWER_S = 5.0
"""Seconds that a hypervisor has to answer a query."""

log = get_logger()


class Questions:
    """Answers what is asked of one node."""

    def __init__(
        self, node: str, subjects: Subjects, journal: Journal, inventory: Inventory, looks: Looks, *, clock: Callable[[], float]
    ) -> None:
        self._node = node
        self._subjects = subjects
        self._journal = journal
        self._inventory = inventory
        self._looks = looks
        self._clock = clock

    async def answer(self, message: Message) -> tuple[bytes, Headers]:
        """Answer one request on `ask.<node>.<project>.<domain>.<query>`."""
        try:
            routed = self._subjects.parse_routed(message.subject)
            project = token.project(routed.project)
            verb = find(routed.verb, "query", "fleet")
            command = decode_command(verb, message.body, message.headers)
            if isinstance(command.args, CommandIdArgs):
                return answer({"command": self._recorded(project, command.args.id)}), {}
            if verb.kind == "fleet":
                raise Invalid(f"verb {verb.name!r} is asked of api, not of a node")
            return answer({"domain" if verb.name == "get" else verb.name: await self._ask(verb.name, project, routed.domain)}), {}
        except WireError as error:
            return refusal(error)

    def _recorded(self, project: str, identity: str) -> dict[str, Any]:
        entry = self._journal.find(project, identity)
        if entry is None:
            raise NotFound(f"command {identity!r} is not in the ledger of node {self._node}")
        return {
            "id": entry.id,
            "project": entry.project,
            "node": self._node,
            "verb": entry.verb,
            "subject": entry.subject,
            "sequence": entry.sequence,
            "phase": entry.phase,
            "result": codec.decode(entry.result, dict) if entry.result else None,
        }

    async def _ask(self, query: str, project: str, domain: str) -> Any:
        known = self._find(project, token.domain(domain))
        hypervisor = self._inventory.homes.get(known.uuid)
        if hypervisor is None or not hypervisor.connected:
            raise NodeUnavailable(f"the hypervisor of domain {known.name!r} is not connected")
        stuck = self._looks.stuck(known.uuid)
        if query == "stats" and stuck is not None:
            # Libvirt gives what figures it has itself, and who sums them up would not see that the others are missing.
            raise DeadlineExceeded(f"domain {known.name!r} has not answered since {timestamp(stuck.since)}")

        def read() -> Any:
            return self._read(hypervisor, query, known.uuid)

        try:
            return await self._looks.asked(hypervisor, known.uuid, read, "ask", ANSWER_S, query)
        except Silent as error:
            raise DeadlineExceeded(f"domain {known.name!r} does not answer: {error}") from error
        except Crowded as error:
            raise Busy(f"{error}; try again later") from error
        except DriverError as error:
            raise translated(error, outcome="none") from error

    def _read(self, hypervisor: Hypervisor, query: str, uuid: str) -> Any:
        if query != "get":
            return hypervisor.driver.ask(query, uuid)
        sighting = hypervisor.look(uuid)
        if sighting is None:
            raise NotFound(f"domain {uuid} is not on this node")
        return self._seen(hypervisor, sighting)

    def _seen(self, hypervisor: Hypervisor, sighting: Sighting) -> Observed:
        known = self._inventory.known.get(sighting.uuid)
        return observed(
            sighting,
            node=self._node,
            hypervisor=hypervisor.uri,
            default_project=self._inventory.default_project,
            epoch=known.epoch if known is not None else "",
            sequence=int(known.sequence) if known is not None else 0,
            updated=timestamp(self._clock()),
        )

    def _find(self, project: str, domain: str) -> Observed:
        known = self._inventory.known.get(domain)
        if known is not None and known.project == project:
            return known
        named = [other for other in self._inventory.known.values() if other.name == domain and other.project == project]
        if not named:
            raise NotFound(f"domain {domain!r} is not in project {project!r} on node {self._node}")
        if len(named) > 1:
            uuids = ", ".join(sorted(other.uuid for other in named))
            raise Conflict(f"several domains of project {project!r} on node {self._node} are called {domain!r}: {uuids}; use a UUID")
        return named[0]


