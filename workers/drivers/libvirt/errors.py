"""Libvirt's errors as the driver port's. The numbers were found by asking libvirt 9.0; see the witnesses in tests/unit/drivers."""

from __future__ import annotations

import libvirt

from workers.drivers.port import Aborted, DriverError, Exists, Impossible, Lost, Malformed, Missing, Rejected

_INTERNAL_IN_RPC = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)
"""What a call gets that finds its socket closed, or its keepalive unanswered."""

_KINDS: dict[int, type[DriverError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: Missing,
    libvirt.VIR_ERR_DOM_EXIST: Exists,
    libvirt.VIR_ERR_XML_ERROR: Malformed,
    libvirt.VIR_ERR_XML_DETAIL: Malformed,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: Malformed,
    libvirt.VIR_ERR_NO_SUPPORT: Impossible,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: Impossible,
    libvirt.VIR_ERR_OPERATION_ABORTED: Aborted,
    libvirt.VIR_ERR_NO_CONNECT: Lost,
    libvirt.VIR_ERR_INVALID_CONN: Lost,
}


def translate(error: libvirt.libvirtError, *, alive: bool) -> DriverError:
    """Return the port's error for `error`; `alive` tells whether the connection stands after it.

    Only libvirt's own "no domain" is `Missing`: it can come from nowhere but a hypervisor that answered. On a dead
    connection every other code means that the call may have happened (libvirt then says 1 in RPC, 38, or "cause is unknown").
    """
    code, domain = numbers(error)
    kind = _KINDS.get(code, Rejected)
    if kind is not Missing and (not alive or (code, domain) == _INTERNAL_IN_RPC):
        kind = Lost
    return kind(str(error), code=code, domain=domain)


def numbers(error: libvirt.libvirtError) -> tuple[int, int]:
    """Return libvirt's error code and error domain, 0 where it gave none."""
    return error.get_error_code() or 0, error.get_error_domain() or 0


def is_unsupported(error: libvirt.libvirtError) -> bool:
    """Tell whether the hypervisor lacks the call or one of its flags, so that nothing was done."""
    return error.get_error_code() in (
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    )
