"""What is known of a command that somebody wants to cancel, and whether it is the one that is meant (decision 5)."""

from __future__ import annotations

import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.command import Result
from orchestrator.protocol.token import NONE


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a command has got to.

    node: whose log has it, or may have; `_` where no node need be asked. uuid: of its domain, `_` if unknown.
    name: by which that was addressed, if it was. result: how it ended, as JSON; None if it has not, as far as is known.
    """

    node: str = NONE
    uuid: str = NONE
    name: str | None = None
    result: bytes | None = None


def domain_of(result: bytes | None) -> str:
    """Return the UUID of the domain that a result speaks of, `_` if it names none. Raises `Invalid` if it is no result."""
    domain = None if result is None else codec.decode(result, Result).domain
    return NONE if domain is None else domain.uuid


def may_mean(said_uuid: str, said_name: str | None, uuid: str, name: str | None) -> bool:
    """Tell whether a command of the domain `uuid`, addressed by `name`, may be the one that a cancel names under a domain.

    What is not known contradicts nothing.
    """
    if NONE not in (said_uuid, uuid):
        return said_uuid == uuid
    return None in (said_name, name) or said_name == name
