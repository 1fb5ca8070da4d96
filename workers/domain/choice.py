"""Which of a node's hypervisors a new domain shall live on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.protocol.error import Unsupported


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A hypervisor of the node. types: of the domains that it runs, None while it has not yet been open. works: can be asked now."""

    uri: str
    types: Sequence[str] | None
    works: bool


def choose(offers: Sequence[Offer], *, wanted: str | None, type: str) -> list[Offer]:
    """Return those that may take a domain whose XML says `type`, the best first: what works now, then the order given.

    wanted: the URI or type that the sender named, if any. A hypervisor that has not been open may run anything. Raises
    `Unsupported`, naming what the node lacks.
    """
    if not offers:
        raise Unsupported("this node has no hypervisor")
    named = [one for one in offers if one.uri == wanted] or [one for one in offers if wanted is None or _runs(one, wanted)]
    if not named:
        raise Unsupported(f"args.hypervisor: this node has no {wanted!r}; it has {_told(offers)}")
    # XML without a type is for the hypervisor to refuse, and where there is but one, so is any type: it knows the right words.
    able = [one for one in named if not type or _runs(one, type) or len(offers) == 1]
    if not able:
        raise Unsupported(f"xml: no hypervisor here runs domains of type {type!r}; there is {_told(named)}")
    return sorted(able, key=lambda one: (not one.works, one.types is None))


def _runs(offer: Offer, type: str) -> bool:
    return offer.types is None or type in offer.types


def _told(offers: Sequence[Offer]) -> str:
    return ", ".join(f"{one.uri} ({', '.join(one.types) if one.types is not None else 'not reached yet'})" for one in offers)
