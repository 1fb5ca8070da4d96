"""What became of a command whose call was cut off: told from what the hypervisor shows now, never by trying again."""

from __future__ import annotations

from orchestrator.protocol.error import Outcome
from orchestrator.protocol.verb import Args, Verb
from workers.domain.admission import holds
from workers.drivers.port import Sighting

_SEEN = frozenset({"undefine", "set-autostart", "managed-save-remove"})
"""Verbs without a goal of which a look tells whether they happened."""


def settle(verb: Verb, args: Args, sighting: Sighting | None, *, existed: bool) -> Outcome:
    """Return `applied`, `none`, `partial` or, where nothing can tell, `unknown`.

    `existed`: the domain was known before the command began.
    """
    if verb.settles is not None:
        return verb.settles(args, sighting)
    if verb.name == "managed-save":
        return _settle_saving(sighting)
    if verb.creates:
        return _settle_creation(verb, sighting, existed=existed)
    # A reboot leaves no trace in the state, nor does what somebody's own verb did unless it names a goal.
    otherwise: Outcome = "none" if verb.goal is not None or verb.name in _SEEN else "unknown"
    if sighting is None:
        # Gone: what removes or stops it has succeeded; a transient domain goes when it stops.
        return "applied" if verb.name in ("undefine", "destroy", "shutdown") and existed else otherwise
    return "applied" if holds(verb, args, sighting) else otherwise


def _settle_saving(sighting: Sighting | None) -> Outcome:
    """Tell of a managed save: what is off without its image was only stopped; what is still paused for the image was not let run on."""
    if sighting is None or (not sighting.active and not sighting.saved) or (sighting.state, sighting.reason) == ("paused", "save"):
        return "partial"
    return "none" if sighting.active else "applied"


def _settle_creation(verb: Verb, sighting: Sighting | None, *, existed: bool) -> Outcome:
    if sighting is None:
        return "none"
    if existed:
        return "unknown"  # that it is there, or runs, may have been so before
    return "applied" if verb.goal is None or sighting.active else "partial"


def among_others(verb: Verb, outcome: Outcome) -> Outcome:
    """Return what `settle` tells where other commands of the domain are in doubt too, any of which may have come after this one.

    That what it is for holds is true all the same, but not where it says nothing of the arguments: a domain may be there by
    another's XML.
    """
    return "applied" if outcome == "applied" and not verb.creates else "unknown"
