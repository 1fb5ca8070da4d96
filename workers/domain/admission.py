"""Whether a command may begin, judged from what the domain is at the head of its queue.

Verbs are absolute (PROTOCOL §4): what holds already is no error but a success that changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from orchestrator.protocol.command import Condition
from orchestrator.protocol.error import AlreadyExists, Conflict, NotFound
from orchestrator.protocol.verb import Args, AutostartArgs, Verb
from workers.drivers.port import Sighting

Admission = Literal["run", "ignore"]


def admit(
    verb: Verb, args: Args, condition: Condition | None, uuid: str, sighting: Sighting | None, *, undefined_here: bool = False
) -> Admission:
    """Return whether to run the verb or to ignore it since its goal holds already.

    `sighting` is the domain now, None where there is provably none; a domain of another project is none.
    `undefined_here`: this worker itself removed a domain with this UUID. Raises `NotFound`, `AlreadyExists`, `Conflict`.
    """
    _check(condition, sighting)
    if sighting is None:
        if verb.creates:
            return "run"
        if verb.name == "undefine" and undefined_here:
            return "ignore"
        raise NotFound(f"domain {uuid} is not on this node")
    if verb.name == "create-xml":
        raise AlreadyExists(f"domain {uuid} exists already, as {sighting.name!r}; use start, or define-xml to change it")
    if holds(verb, args, sighting):
        return "ignore"
    if verb.from_states and sighting.state not in verb.from_states:
        allowed = ", ".join(sorted(verb.from_states))
        raise Conflict(f"domain {sighting.name!r} is {sighting.state}; {verb.name} needs one of: {allowed}")
    return "run"


def holds(verb: Verb, args: Args, sighting: Sighting) -> bool:
    """Tell whether what the verb is for is so already."""
    if isinstance(args, AutostartArgs):
        return sighting.autostart == args.enabled
    if verb.name in _HELD:
        return _HELD[verb.name](sighting)
    if verb.goal == "running":
        return not verb.creates and sighting.state in ("running", "blocked")
    return verb.goal is not None and sighting.state == verb.goal


_HELD: dict[str, Callable[[Sighting], bool]] = {
    "start": lambda seen: seen.active,
    "undefine": lambda seen: not seen.persistent,
    "managed-save": lambda seen: seen.saved and not seen.active,
    "managed-save-remove": lambda seen: not seen.saved,
}
"""What holds once a verb has happened, where its goal does not tell."""


def _check(condition: Condition | None, sighting: Sighting | None) -> None:
    if condition is None:
        return
    actual = (
        ("state", condition.state, sighting.state if sighting else None),
        ("generation", condition.generation, _generation(sighting)),
        ("incarnation", condition.incarnation, sighting.incarnation if sighting else None),
    )
    for field, wanted, found in actual:
        if wanted is not None and wanted != found:
            raise Conflict(f"if.{field}: wanted {wanted}, the domain has {found}")


def _generation(sighting: Sighting | None) -> int:
    return sighting.tag.generation if sighting is not None and sighting.tag is not None else 0
