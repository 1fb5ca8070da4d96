"""What became of a command whose call was cut off: told from what the hypervisor shows now, never by trying again."""

from __future__ import annotations

from orchestrator.protocol.error import Outcome
from orchestrator.protocol.verb import Args, Verb
from workers.domain.admission import holds
from workers.drivers.port import Sighting


def settle(verb: Verb, args: Args, sighting: Sighting | None, *, existed: bool) -> Outcome:
    """Return `applied`, `none`, `partial` or, where nothing can tell, `unknown`.

    `existed`: the domain was known before the command began.
    """
    if verb.settles is not None:
        return verb.settles(args, sighting)
    if verb.creates:
        return _settle_creation(verb, sighting, existed=existed)
    # A reboot leaves no trace in the state, nor does what somebody's own verb did unless it names a goal.
    otherwise: Outcome = "none" if verb.goal is not None or verb.name in ("undefine", "set-autostart") else "unknown"
    if sighting is None:
        # Gone: what removes or stops it has succeeded; a transient domain goes when it stops.
        return "applied" if verb.name in ("undefine", "destroy", "shutdown") and existed else otherwise
    return "applied" if holds(verb, args, sighting) else otherwise


def _settle_creation(verb: Verb, sighting: Sighting | None, *, existed: bool) -> Outcome:
    if sighting is None:
        return "none"
    if verb.goal is None:
        return "unknown" if existed else "applied"
    return "applied" if sighting.active else "partial"
