"""Verbs of somebody's own, beside those of the registry: what clients may ask and what a worker does for it, in one value.

    class TrimArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        disk: str = "vda"

    def trim(driver, uuid, args):           # on the worker, in a thread; may block
        with driver.connected() as connection:
            connection.lookupByUUIDString(uuid).fSTrim(None, 0)

    TRIM = Verb(name="trim", args=TrimArgs, summary="give unused blocks back", run=trim, settles=lambda args, domain: "unknown")

A program says `register(TRIM)`. A package names the value as an entry point of the group `virtbus.verbs`; then worker,
coordinator, client and command line all know the verb, wherever that package is installed.

run: `run(driver, uuid, args)`, with the driver of the domain's hypervisor, raises the driver port's errors: `Impossible` where it is the
wrong one. Without it the driver's own `run` is given the verb, if the driver lists it among its abilities.
settles: `settles(args, domain)` tells from what the hypervisor shows (a `Sighting`, None where the domain is gone) what became of a command
whose worker died in the middle. Without it and without `goal` nothing can tell: outcome `unknown`.
A verb of one's own changes a domain that exists; it cannot create one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orchestrator.protocol import token
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.verb import VERBS, Verb

GROUP = "virtbus.verbs"
"""The group of entry points; each refers to a `Verb`."""


class Named(Protocol):
    """An entry point, as `importlib.metadata` gives it."""

    @property
    def name(self) -> str:
        """Its name."""

    def load(self) -> object:
        """Import what it refers to."""


def register(verb: Verb) -> Verb:
    """Add a verb to the registry of this process, and return it; once more is no error. Raises `Invalid` if it cannot be one."""
    if VERBS.get(verb.name) == verb:
        return verb
    fault = _fault(verb)
    if fault:
        raise Invalid(f"verb {verb.name!r} cannot be registered: {fault}")
    VERBS[verb.name] = verb
    return verb


def enlist(points: Iterable[Named]) -> None:
    """Register the verbs that `points` refer to. Raises `Invalid` for one that cannot be loaded or registered."""
    for point in points:
        try:
            verb = point.load()
        except (ImportError, AttributeError) as error:
            raise Invalid(f"entry point {point.name!r} of {GROUP} cannot be loaded: {error}; mend or remove its package") from error
        if not isinstance(verb, Verb):
            raise Invalid(f"entry point {point.name!r} of {GROUP} is no Verb, but {type(verb).__name__}")
        register(verb)


def _fault(verb: Verb) -> str:
    """Return why it cannot be registered, '' if it can."""
    if not token.is_word(verb.name):
        return "its name is no token; use 1 to 63 of A-Z a-z 0-9 _ -"
    if verb.name in VERBS:
        return "there is one of that name"
    if verb.kind != "verb" or verb.creates:
        return "only verbs that change a domain that exists can be added"
    if not verb.args.__struct_config__.forbid_unknown_fields:
        return f"commands are strict; give {verb.args.__name__} forbid_unknown_fields=True"
    return ""
