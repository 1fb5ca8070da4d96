"""What all kinds of events have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, overload

import msgspec

from orchestrator.protocol.event import Event

T = TypeVar("T")


class Said(Generic[T]):
    """A part of an event's `data` as an attribute: the value at `path`, `default` where it is not there or is of another type."""

    def __init__(self, kind: Any, default: T, path: str = "") -> None:
        self._kind = kind
        self._default = default
        self._path = path

    def __set_name__(self, owner: type, name: str) -> None:
        self._path = self._path or name

    @overload
    def __get__(self, event: None, owner: type) -> Said[T]: ...

    @overload
    def __get__(self, event: Event, owner: type) -> T: ...

    def __get__(self, event: Event | None, owner: type) -> Said[T] | T:
        if event is None:
            return self
        said = event.data if self._path == "." else event.data.get(self._path) if isinstance(event.data, dict) else None
        try:
            value: T = msgspec.convert(said, self._kind)
        except msgspec.ValidationError:
            return self._default
        return value


class Known(Event, frozen=True, kw_only=True):
    """Base of the kinds that this library knows; `data` is a dictionary."""

    kind: ClassVar[str]
    data: dict[str, Any]


class Other(Event, frozen=True, kw_only=True):
    """An event of a kind that this library does not know; `name` is its kind."""
