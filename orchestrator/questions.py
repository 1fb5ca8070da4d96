"""What can be asked: nodes, domains, one domain, what is recorded of a command."""

from __future__ import annotations

from typing import Any

from orchestrator.protocol import token
from orchestrator.protocol.command import Body
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Conflict, NotFound
from orchestrator.protocol.node import Node
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.token import NONE
from orchestrator.requests import Requests, encoded, fitting


class Questions:
    """Asks the fleet; nothing is changed. A domain is given by its UUID or name, and stands in `project` unless the call names another."""

    def __init__(self, requests: Requests, subjects: Subjects, project: str) -> None:
        self.project = token.project(project)
        self._requests = requests
        self._subjects = subjects

    async def nodes(self) -> list[Node]:
        """Return all nodes that ever announced themselves. The broker must allow it: nodes belong to no project."""
        return [node for page in await self._requests.pages(self._subjects.api(NONE, NONE, "nodes")) for node in page.nodes]

    async def domains(self, *, project: str | None = None, every: bool = False) -> list[Observed]:
        """Return the domains of a project, or of every one, if the broker allows that."""
        owner = NONE if every else self._owner(project)
        return [domain for page in await self._requests.pages(self._subjects.api(owner, NONE, "domains")) for domain in page.domains]

    async def get(self, domain: str, *, project: str | None = None) -> Observed:
        """Return a domain's observed state. Raises `NotFound`, or `Conflict` if the name is not unique."""
        owner = self._owner(project)
        if not is_token(domain):
            return await self._named(owner, domain)
        result = await self._requests.question(self._subjects.api(owner, token.domain(domain), "get"))
        return fitting(result.get("domain"), Observed)

    async def xml(self, domain: str, *, project: str | None = None) -> str:
        """Return a domain's XML, as its node's hypervisor has it."""
        return fitting(await self._on_node(self._owner(project), domain, "xml"), str)

    async def stats(self, domain: str, *, project: str | None = None) -> dict[str, Any]:
        """Return a domain's figures under libvirt's bulk-stats names."""
        return fitting(await self._on_node(self._owner(project), domain, "stats"), dict[str, Any])

    async def command(self, id: str, *, domain: str | None = None, project: str | None = None) -> dict[str, Any]:
        """Return what is recorded of a command. domain: its domain, which need not be searched for then. Raises `NotFound`."""
        subject = self._subjects.api(self._owner(project), place(domain), "command")
        result = await self._requests.question(subject, encoded(Body(args={"id": token.command_id(id, own=True)})))
        return fitting(result.get("command"), dict[str, Any])

    def _owner(self, project: str | None) -> str:
        return self.project if project is None else token.project(project)

    async def _named(self, project: str, name: str) -> Observed:
        """Return the domain whose name is no token: it is looked for in the list."""
        found = [domain for domain in await self.domains(project=project) if domain.name == name]
        if not found:
            raise NotFound(f"project {project} has no domain called {name!r}")
        if len(found) > 1:
            raise Conflict(f"{len(found)} domains are called {name!r}: {', '.join(one.uuid for one in found)}; use a UUID")
        return found[0]

    async def _on_node(self, project: str, domain: str, query: str) -> Any:
        found = await self.get(domain, project=project)
        subject = self._subjects.ask(found.node, project, found.uuid, query)
        return (await self._requests.question(subject, silence=f"node {found.node} does not answer")).get(query)


def place(domain: str | None) -> str:
    """Return the token of a domain that only helps to find something; a name that is none does not help."""
    return token.domain(domain) if domain is not None and is_token(domain) else NONE


def is_token(domain: str) -> bool:
    """Tell whether a domain's name or UUID can stand in a subject."""
    return token.is_uuid(domain) or token.is_word(domain)
