"""Where a domain lives: name to UUID, UUID to node, and the proof that it lives nowhere (PROTOCOL §1, §4, §6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.error import Conflict, NotFound
from orchestrator.protocol.node import Lease, Node

ADOPTED = "m-adopted"
"""`id` in the owner record of a domain that no command of ours made."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a domain lives. fence: its owner record's epoch. recorded: False where it was only seen there, with no record yet."""

    node: str
    fence: int
    recorded: bool


def one_of(name: str, uuids: Iterable[str]) -> str | None:
    """Return the UUID that a name stands for, None if it stands for none; raise `Conflict` if for several."""
    found = sorted(set(uuids))
    if len(found) > 1:
        raise Conflict(f"{len(found)} domains are called {name!r}: {', '.join(found)}; use a UUID")
    return found[0] if found else None


def whereabouts(project: str, uuid: str, owner: Owner | None, sightings: Iterable[Observed]) -> Place | None:
    """Return where the domain lives, None if nothing is known of it.

    Raises `NotFound` where it belongs to another project, `Conflict` where several nodes show it and no record decides.
    """
    if owner is not None:
        if owner.project != project:
            raise _foreign(project, uuid)
        return Place(node=owner.node, fence=owner.epoch, recorded=True)
    held = sorted((seen for seen in sightings if seen.role == "owner"), key=lambda seen: seen.node)
    if len(held) > 1:
        raise Conflict(f"domain {uuid} is on several nodes: {', '.join(seen.node for seen in held)}; remove it from all but one")
    if not held:
        return None
    if held[0].project != project:
        raise _foreign(project, uuid)
    return Place(node=held[0].node, fence=1, recorded=False)


def silent(nodes: Iterable[Node], leases: Mapping[str, Lease]) -> list[str]:
    """Return the nodes that do not prove what they hold: no living lease, or no scan since their start; in order.

    None of them, and nobody showing a domain, is the proof that it is nowhere. A node writes its record
    after the scan that follows each start, so record and lease of one epoch mean that it has scanned.
    """
    return sorted(node.node for node in nodes if node.node not in leases or leases[node.node].epoch != node.epoch)


def _foreign(project: str, uuid: str) -> NotFound:
    return NotFound(f"project {project} has no domain {uuid}")
