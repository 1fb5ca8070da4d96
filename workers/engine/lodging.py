"""Which of the node's hypervisors a command is for: the domain's home, or where a new domain shall live."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from orchestrator.protocol import domainxml
from orchestrator.protocol.command import Command
from orchestrator.protocol.error import Conflict, DeadlineExceeded, NodeUnavailable, Unsupported
from orchestrator.protocol.verb import XmlArgs
from workers.domain.choice import Offer, choose
from workers.engine.hypervisor import Hypervisor
from workers.engine.inventory import Inventory
from workers.engine.queue import DomainQueue
from workers.journal.port import Entry


class Lodging:
    """Finds the hypervisor for one command, and waits for it."""

    def __init__(
        self,
        inventory: Inventory,
        hypervisors: Sequence[Hypervisor],
        queue: DomainQueue,
        entry: Entry,
        command: Command,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`clock` gives broker time."""
        self._inventory = inventory
        self._hypervisors = hypervisors
        self._queue = queue
        self._entry = entry
        self._command = command
        self._clock = clock
        self._waiting: anyio.CancelScope | None = None
        self._left = False

    async def find(self) -> Hypervisor | None:
        """Return it, open and scanned; None if it was left meanwhile.

        What had begun is waited for as long as it takes. Raises `DeadlineExceeded`, `Conflict`, `Unsupported`, `NodeUnavailable`.
        """
        possible = self._possible()
        if self._entry.phase == "begun":
            return await self._shown(possible)
        if not possible[0].connected:
            with anyio.move_on_after(self._remaining()) as self._waiting:
                await _any_ready(possible)
            self._waiting = None
            if self._left:
                return None
            possible = self._possible()
        if not possible[0].connected or not self._remaining():
            raise DeadlineExceeded("not begun before its deadline")
        return possible[0] if len(possible) == 1 or self._command.verb.creates else await self._which(possible)

    def leave(self) -> bool:
        """Stop waiting: `find` returns None. False if it does not wait."""
        if self._waiting is None:
            return False
        self._left = True
        self._waiting.cancel()
        return True

    def _remaining(self) -> float:
        return max(0.0, self._entry.deadline - self._clock())

    def _possible(self) -> list[Hypervisor]:
        """Return the hypervisors that the command may be for, the best first; the domain's home alone, if it has one."""
        uuid, begun = self._entry.uuid, self._entry.phase == "begun"
        home, known = self._inventory.homes.get(uuid), self._inventory.known.get(uuid)
        if home is not None:
            if not begun:
                self._inventory.doubles.check(uuid, home)
                if known is not None and known.project == self._entry.project:
                    self._check_wish(home)
            return [home]
        if known is not None:
            raise NodeUnavailable(
                f"domain {uuid} was last seen on {known.hypervisor}, which this worker does not serve now",
                outcome="unknown" if begun else "none",
            )
        try:
            return self._fitting()
        except Unsupported:
            if begun and self._hypervisors:
                return list(self._hypervisors)  # it had begun on one of them, whatever they can do now
            raise

    def _fitting(self) -> list[Hypervisor]:
        args = self._command.args
        wanted, type = (args.hypervisor, domainxml.identify(args.xml).type) if isinstance(args, XmlArgs) else (None, "")
        by_uri = {one.uri: one for one in self._hypervisors}
        offers = [Offer(uri=uri, types=one.ability.types if one.ability else None, works=one.works) for uri, one in by_uri.items()]
        return [by_uri[offer.uri] for offer in choose(offers, wanted=wanted, type=type)]

    def _check_wish(self, home: Hypervisor) -> None:
        """Raise `Conflict` where the sender names another hypervisor than the one that has the domain."""
        wanted = self._command.args.hypervisor if isinstance(self._command.args, XmlArgs) else None
        types = home.ability.types if home.ability is not None else ()
        if wanted is not None and wanted != home.uri and wanted not in types:
            where = f"domain {self._entry.uuid} is on {home.uri}"
            raise Conflict(f"args.hypervisor: {where}; leave hypervisor out, or remove the domain there first")

    async def _which(self, possible: Sequence[Hypervisor]) -> Hypervisor:
        """Return which of them has a domain that none has told of yet; raise `NodeUnavailable` if that cannot be said of all."""
        for hypervisor in possible:
            if hypervisor.connected and await self._queue.look(hypervisor, []) is not None:
                return hypervisor
        away = ", ".join(hypervisor.uri for hypervisor in possible if not hypervisor.connected)
        if away:
            raise NodeUnavailable(f"domain {self._entry.uuid} is on no hypervisor of this node that answers, and {away} does not")
        return possible[0]

    async def _shown(self, possible: Sequence[Hypervisor]) -> Hypervisor:
        """Return the domain's home as soon as one is known, the first if all were scanned and none shows it."""
        for hypervisor in possible:
            await hypervisor.ready()
            if self._entry.uuid in self._inventory.homes:
                return self._inventory.homes[self._entry.uuid]
        return possible[0]


async def _any_ready(hypervisors: Sequence[Hypervisor]) -> None:
    """Wait until one of them is open and scanned."""
    async with anyio.create_task_group() as tasks:

        async def wait(hypervisor: Hypervisor) -> None:
            await hypervisor.ready()
            tasks.cancel_scope.cancel()

        for hypervisor in hypervisors:
            tasks.start_soon(wait, hypervisor)
