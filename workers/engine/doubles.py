"""Domains that more than one hypervisor of this node shows: told, not hidden, and no command touches either."""

from __future__ import annotations

from orchestrator.protocol.error import Conflict
from workers.engine.hypervisor import Hypervisor
from workers.engine.outbox import Draft, Outbox


class Doubles:
    """By UUID, the hypervisors that show a domain whose home is another one."""

    def __init__(self, node: str, outbox: Outbox) -> None:
        self._node = node
        self._outbox = outbox
        self._strangers: dict[str, list[Hypervisor]] = {}
        self._called: dict[str, tuple[str, str]] = {}

    def strangers(self, uuid: str) -> list[Hypervisor]:
        """Return the hypervisors that show the domain and are not its home."""
        return list(self._strangers.get(uuid, ()))

    def of(self, hypervisor: Hypervisor) -> set[str]:
        """Return the domains that `hypervisor` showed though their home is another one."""
        return {uuid for uuid, strangers in self._strangers.items() if hypervisor in strangers}

    def check(self, uuid: str, home: Hypervisor) -> None:
        """Raise `Conflict` if it cannot be told which of several domains is meant."""
        strangers = self._strangers.get(uuid)
        if strangers:
            shown = ", ".join(one.uri for one in (home, *strangers))
            raise Conflict(f"domain {uuid} is on several hypervisors of node {self._node}: {shown}; remove all but one there")

    async def note(self, uuid: str, name: str, project: str, home: Hypervisor, stranger: Hypervisor) -> None:
        """Take that `stranger` shows it too; told once. Raises `JournalFull`."""
        strangers = self._strangers.setdefault(uuid, [])
        if stranger not in strangers:
            strangers.append(stranger)
            self._called[uuid] = (name, project)
            await self._tell(uuid, home)

    async def part(self, uuid: str, home: Hypervisor, stranger: Hypervisor) -> None:
        """Take that `stranger` shows it no more, or is its home now; told, with who shows it still. Raises `JournalFull`."""
        strangers = self._strangers.get(uuid, [])
        if stranger in strangers:
            strangers.remove(stranger)
            await self._tell(uuid, home)
            if not strangers:
                del self._strangers[uuid], self._called[uuid]

    async def _tell(self, uuid: str, home: Hypervisor) -> None:
        """Tell each change: more than one hypervisor in it means that the UUID is not unique on this node."""
        name, project = self._called[uuid]
        shown = [home.uri, *(one.uri for one in self._strangers[uuid] if one is not home)]
        data = {"uuid": uuid, "name": name, "nodes": [self._node], "hypervisors": shown}
        await self._outbox.tell([Draft(name="health.duplicate-domain", project=project, domain=uuid, data=data, domainname=name)])
