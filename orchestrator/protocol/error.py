"""Errors of the wire: one class a code, each with its HTTP-like number.

An error carries all that a failure on the wire says: the code, a sentence that names
the field and the remedy, whether a new attempt can help, and what is known of the effect.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

Outcome = Literal["none", "unknown", "partial", "applied"]

MAX_SENTENCE = 8192
"""Letters that a message may have. It may quote what was sent, and must fit into an event whatever that was."""


class LibvirtCode(msgspec.Struct, frozen=True, kw_only=True):
    """Libvirt's own verdict: `virErrorNumber` and `virErrorDomain`."""

    code: int
    domain: int


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `error` object of a result (PROTOCOL §4)."""

    code: str
    message: str
    retryable: bool | msgspec.UnsetType = msgspec.UNSET
    outcome: Outcome | msgspec.UnsetType = msgspec.UNSET
    libvirt: LibvirtCode | None = None


class WireError(Exception):
    """Base of all errors that have a code on the wire."""

    code: ClassVar[str] = "internal"
    number: ClassVar[int] = 500
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome = "none",
        retryable: bool | None = None,
        libvirt: LibvirtCode | None = None,
    ) -> None:
        if len(message) > MAX_SENTENCE:
            message = f"{message[:MAX_SENTENCE]}…"
        super().__init__(message)
        self.message = message
        self.outcome: Outcome = outcome
        self.libvirt = libvirt
        if retryable is not None:
            self.retryable = retryable

    def failure(self) -> Failure:
        """Return the error as it stands in a result."""
        return Failure(
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            outcome=self.outcome,
            libvirt=self.libvirt,
        )


class Invalid(WireError):
    """The request itself is wrong; the message names the field and the remedy."""

    code = "invalid"
    number = 400


class Denied(WireError):
    """The caller may not do this."""

    code = "denied"
    number = 403


class NotFound(WireError):
    """No such domain, node or command in this project."""

    code = "not_found"
    number = 404


class AlreadyExists(WireError):
    """What should be made is there already."""

    code = "already_exists"
    number = 409


class Conflict(WireError):
    """The request contradicts what is there or what was asked before."""

    code = "conflict"
    number = 409


class Busy(WireError):
    """A bounded queue or the journal is full; nothing was done."""

    code = "busy"
    number = 429
    retryable = True


class NoCapacity(WireError):
    """No node can take the domain."""

    code = "no_capacity"
    number = 429
    retryable = True


class Cancelled(WireError):
    """Cancelled on request."""

    code = "cancelled"
    number = 499
    retryable = True


class Internal(WireError):
    """A fault of ours."""


class Unsupported(WireError):
    """This hypervisor cannot do that; nothing was tried."""

    code = "unsupported"
    number = 501


class HypervisorRefused(WireError):
    """Libvirt said no; its code and message are inside."""

    code = "hypervisor"
    number = 502


class NodeUnavailable(WireError):
    """The node that should do it does not answer."""

    code = "node_unavailable"
    number = 503
    retryable = True


class DeadlineExceeded(WireError):
    """The time given for the command is over."""

    code = "deadline"
    number = 504
    retryable = True


BY_CODE: dict[str, type[WireError]] = {
    kind.code: kind
    for kind in (
        Invalid,
        Denied,
        NotFound,
        AlreadyExists,
        Conflict,
        Busy,
        NoCapacity,
        Cancelled,
        Internal,
        Unsupported,
        HypervisorRefused,
        NodeUnavailable,
        DeadlineExceeded,
    )
}


def raised(failure: Failure) -> WireError:
    """Return the exception that says the same as `failure`; unknown codes become `Internal`."""
    return BY_CODE.get(failure.code, Internal)(
        failure.message,
        outcome="none" if failure.outcome is msgspec.UNSET else failure.outcome,
        retryable=None if failure.retryable is msgspec.UNSET else failure.retryable,
        libvirt=failure.libvirt,
    )
