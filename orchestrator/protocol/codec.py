"""JSON to values and back; what does not fit becomes `Invalid` and names the field."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from orchestrator.protocol.error import Invalid

MAX_COMMAND = 512 * 1024
"""Bytes a command's body may have (PROTOCOL §4)."""

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")


def encode(value: Any) -> bytes:
    """Return `value` as JSON."""
    return _encoder.encode(value)


def canonical(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, so that equal values have equal bytes."""
    return _canonical.encode(value)


def decode(raw: bytes, kind: type[T]) -> T:
    """Return the value of type `kind` that `raw` holds; raise `Invalid` where it does not fit."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"body: {error}") from error


def convert(value: Any, kind: type[T], *, field: str) -> T:
    """Return plain `value` as `kind`; raise `Invalid`, with `field` as the place, where it does not fit."""
    try:
        return msgspec.convert(value, type=kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Invalid(f"{field}: {error}") from error


def check_keys(raw: bytes) -> None:
    """Raise `Invalid` where an object in `raw`, which is JSON, has a key twice: two readers could read two commands (RFC 8259, 4)."""
    if raw.count(b":") > 1:  # most commands have one key, and are not read again for this
        try:
            json.loads(raw, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise Invalid(f"body: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise Invalid(f"body: the key {key!r} stands twice in one object; say it once")
        seen.add(key)
