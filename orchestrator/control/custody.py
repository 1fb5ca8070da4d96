"""Who keeps a domain: which owner records to make, and when one may go (PROTOCOL §2, §6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from orchestrator.protocol.command import Result
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.error import Outcome

ORPHAN_S = 600.0
"""Seconds for which a record stands that no command and no domain accounts for.

Far more than any coordinator goes on trying to store the command that it made the record for.
"""

SETTLE_S = 30.0
"""Seconds in which a living worker shows the domain that it says it made."""

Verdict = Literal["keep", "remove"]


class Ending(msgspec.Struct, frozen=True):
    """How the command that made a record ended.

    settled: what was learnt later of an unknown effect. undone: whether the domain was undefined after it.
    """

    result: Result
    settled: Outcome | None = None
    undone: bool = False


def holders(sightings: Iterable[Observed]) -> list[Observed]:
    """Return what says of itself that it keeps the domain, by node."""
    return sorted((seen for seen in sightings if seen.role == "owner"), key=lambda seen: seen.node)


def residue(
    *, adopted: bool, vacated: bool, ending: Ending | None, waiting: bool, living: bool, missing_s: float
) -> Verdict:
    """Judge an owner record whose domain its node does not show.

    adopted: no command made it. vacated: the domain was there and went, as seen by us. ending: of the command that made it,
    None if the log does not tell. waiting: such a command may lie in the node's log. living: the node has a lease.
    missing_s: for how long we have seen the record stand so.
    """
    if ending is not None and (ending.undone or _without_effect(ending)):
        return "remove"
    if ending is None and not adopted:
        # Under way, never stored, or ended so long ago that the log forgot.
        return "remove" if not waiting and (vacated or missing_s >= ORPHAN_S) else "keep"
    if vacated:
        return "remove"
    patience = SETTLE_S if ending is None or ending.result.ok else ORPHAN_S
    return "remove" if living and missing_s >= patience else "keep"


def _without_effect(ending: Ending) -> bool:
    """Tell whether the command provably made nothing."""
    if ending.result.ok:
        return False
    error = ending.result.error
    return ending.settled == "none" or (isinstance(error, msgspec.Struct) and error.outcome == "none")


def successor(owner: Owner, id: str, name: str | None) -> Owner:
    """Return the record under which another command makes the domain again on the node that has it."""
    return msgspec.structs.replace(owner, id=id, name=name)
