"""Finding a node for a domain that a command may create, and recording it before anything is sent there (PROTOCOL §4)."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.control.intake import Order
from orchestrator.control.locate import whereabouts
from orchestrator.control.placement import Candidate, Want, place
from orchestrator.engine.history import History
from orchestrator.engine.locator import Locator
from orchestrator.engine.mirror import Mirror
from orchestrator.engine.owners import Owners
from orchestrator.engine.route import Repeat, Route
from orchestrator.protocol import domainxml
from orchestrator.protocol.domain import Former, Owner
from orchestrator.protocol.error import AlreadyExists, Conflict, NotFound
from orchestrator.protocol.moment import timestamp

_LOOKS = 3
"""Looks at whether a domain that is being undefined still holds its name."""


class Creation:
    """Places new domains; those that exist, or that a record says are coming, stay where they are.

    `clock` gives broker time. All that touches the broker raises `Uncertain` and `Unavailable`; then do the same again.
    """

    def __init__(self, mirror: Mirror, owners: Owners, locator: Locator, history: History, clock: Callable[[], float]) -> None:
        self._mirror = mirror
        self._owners = owners
        self._locator = locator
        self._history = history
        self._clock = clock
        self._reserved: dict[str, tuple[str, int]] = {}

    async def route(self, order: Order) -> Route | Repeat:
        """Return the way for a command that creates; its owner record stands then, with its id.

        The record is what makes a repeat go to the same node; where it is gone, the log of events tells of the first.
        Raises `Conflict`, `AlreadyExists`, and as `place` does.
        """
        while True:
            if self._mirror.owners.get(order.uuid) is None:
                await self._mirror.whereabouts_caught_up()
            owner = self._mirror.owners.get(order.uuid)
            if owner is not None and owner.project != order.project:
                raise _taken(order)
            if owner is not None and owner.id == order.id:
                return _to(order, owner)
            found = await self._history.find(order.project, order.uuid, order.id)
            if found.terminal is not None:
                return Repeat(result=found.terminal.result, node=found.terminal.node, uuid=order.uuid)
            stands = await (self._new(order, found.nodes) if owner is None else self._again(order, owner))
            if stands is not None and stands.id == order.id:
                return _to(order, stands)

    async def _again(self, order: Order, owner: Owner) -> Owner | None:
        """Take over the record of a domain that exists, or that another command was to make; None if it changed meanwhile."""
        if order.wanted.node not in (None, owner.node):
            raise Conflict(f"args.node: domain {order.uuid} is on node {owner.node}; leave node out, or remove the domain there first")
        if not self._mirror.shows(owner.node, order.uuid):
            await self._locator.made(order.project, order.uuid, order.id)
        stands = await self._owners.succeed(order.uuid, owner.node, order.id, order.name)
        if stands is None:
            await self._mirror.owners.caught_up()
        return stands

    async def _new(self, order: Order, before: frozenset[str]) -> Owner:
        """Make a record: on the node that shows the domain already, else on a chosen one. `before`: nodes that ever had it."""
        node = self._shown(order)
        if node is None:
            await self._check_name(order)
            node = await self._chosen(order)
        until = timestamp(self._clock())
        former = [Former(node=one, until=until) for one in sorted(before - {node})]
        return await self._owners.claim(
            order.uuid, Owner(project=order.project, node=node, epoch=1, id=order.id, name=order.name, former=former)
        )

    def _shown(self, order: Order) -> str | None:
        try:
            found = whereabouts(order.project, order.uuid, None, self._mirror.sightings(order.uuid))
        except NotFound as error:
            raise _taken(order) from error
        if found is None:
            return None
        if order.wanted.node not in (None, found.node):
            raise Conflict(f"args.node: domain {order.uuid} is on node {found.node}; leave node out, or remove the domain there first")
        return found.node

    async def _check_name(self, order: Order) -> None:
        """Refuse a second domain under a name by which one is addressed; who names the node may want it all the same."""
        if not order.by_name or order.name is None or order.wanted.node is not None:
            return
        others: set[str] = set()
        for _ in range(_LOOKS):
            others = await self._locator.called(order.project, order.name, but=order.uuid)
            leaving = [await self._locator.leaving(order.project, other) for other in others]
            if not any(leaving):
                break
        if not others:
            return
        named = ", ".join(sorted(others))
        raise AlreadyExists(f"project {order.project} has a domain called {order.name!r}: {named}; use its UUID to redefine it")

    async def _chosen(self, order: Order) -> str:
        await self._mirror.fleet_caught_up()
        said = domainxml.identify(order.wanted.xml)
        want = Want(
            project=order.project,
            verb=order.verb,
            type=said.type,
            memory_kib=said.memory_kib,
            node=order.wanted.node,
            hypervisor=order.wanted.hypervisor,
        )
        node = place(want, [self._candidate(name) for name in self._mirror.nodes.rows])
        if order.command.verb.goal == "running":
            updated, reserved = self._mirror.nodes.rows[node].value.updated, self._reservation(node)
            self._reserved[node] = updated, reserved + said.memory_kib
        return node

    def _candidate(self, name: str) -> Candidate:
        return Candidate(
            node=self._mirror.nodes.rows[name].value, living=self._mirror.living(name), reserved_kib=self._reservation(name)
        )

    def _reservation(self, node: str) -> int:
        """Return the memory promised since the node's record was written; a newer record shows what was made of it."""
        updated, reserved = self._reserved.get(node, ("", 0))
        return reserved if updated == self._mirror.nodes.rows[node].value.updated else 0


def _to(order: Order, owner: Owner) -> Route:
    if order.wanted.node not in (None, owner.node):
        raise Conflict(f"args.node: domain {order.uuid} is on node {owner.node}")
    return Route(node=owner.node, uuid=order.uuid, fence=owner.epoch)


def _taken(order: Order) -> Conflict:
    return Conflict(f"UUID {order.uuid} is taken by a domain that is not of project {order.project}; choose another")
