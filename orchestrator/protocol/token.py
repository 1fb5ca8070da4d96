"""Tokens: the words that subjects are made of, and the identifiers that ride in them (PROTOCOL §1)."""

from __future__ import annotations

import hashlib
import re
import uuid as _uuid

from orchestrator.protocol.error import Invalid

NONE = "_"
"""Stands where a token does not apply."""

DEFAULT_PROJECT = "default"

_WORD = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_NAMESPACE = _uuid.UUID("7b6f5f0e-6a3c-5b1e-9d0a-766972746275")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def is_word(value: str) -> bool:
    """Tell whether `value` can be a project, node or domain name in a subject."""
    return value != NONE and _WORD.match(value) is not None


def is_uuid(value: str) -> bool:
    """Tell whether `value` has the shape of a UUID, in either case."""
    return _UUID.match(value) is not None


def project(value: str) -> str:
    """Return `value` if it is a project token, else raise `Invalid`."""
    if not is_word(value):
        raise Invalid(f"project {value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ - (not '_' alone)")
    return value


def node(value: str) -> str:
    """Return `value` if it is a node token, else raise `Invalid`."""
    if not is_word(value):
        raise Invalid(f"node {value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ - (not '_' alone)")
    return value


def uuid(value: str) -> str:
    """Return `value` as a lower-case UUID, else raise `Invalid`."""
    if not is_uuid(value):
        raise Invalid(f"domain {value!r} is no UUID: use the form 01234567-89ab-cdef-0123-456789abcdef")
    return value.lower()


def domain(value: str) -> str:
    """Return `value` as a domain token of `api` and `cmd` (lower-case UUID, or name), else raise `Invalid`."""
    if is_uuid(value):
        return value.lower()
    if not is_word(value):
        raise Invalid(f"domain {value!r} is no token: use its UUID, or a name of 1 to 63 of A-Z a-z 0-9 _ -")
    return value


def command_id(value: str, *, own: bool = False) -> str:
    """Return `value` if a client may use it as a command's id (`own`: or virtbus itself), else raise `Invalid`."""
    if _ID.match(value) is None:
        raise Invalid("id: use 1 to 64 of A-Z a-z 0-9 _ -")
    if value.startswith("m-") and not own:
        raise Invalid("id: 'm-' begins the ids that virtbus gives itself; choose another")
    return value


def derived_uuid(project: str, command_id: str) -> str:
    """Return the UUID of a domain created without one: UUIDv5 of `<project>/<id>`, so a repeat is the same domain."""
    return str(_uuid.uuid5(_NAMESPACE, f"{project}/{command_id}"))


def ulid(milliseconds: int, randomness: bytes) -> str:
    """Return the ULID of a time in Unix milliseconds and ten random bytes (the ULID specification)."""
    number = (milliseconds << 80) | int.from_bytes(randomness, "big")
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def ulid_milliseconds(value: str) -> int:
    """Return the time part of a ULID in Unix milliseconds; raise `Invalid` if it is none."""
    if len(value) != 26 or any(letter not in _CROCKFORD for letter in value):
        raise Invalid(f"epoch {value!r} is no ULID")
    number = 0
    for letter in value[:10]:
        number = number * 32 + _CROCKFORD.index(letter)
    return number


def digest(*parts: bytes) -> str:
    """Return a short fingerprint of `parts`, by which two commands are told apart."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(4, "big"))
        sha.update(part)
    return sha.hexdigest()[:32]
