"""Jobs: how far the one of a domain has come, and having it given up. Both answer while the job's own call hangs in libvirt."""

from __future__ import annotations

from typing import Any

import libvirt

from workers.drivers.libvirt import errors
from workers.drivers.port import JobProgress

_RUNS = (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)
_TELLS_NOTHING = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED)
"""Of a domain that is off, and of a driver without jobs."""


def progress(connection: Any, uuid: str) -> JobProgress | None:
    """Return how far the domain's job has come, None where none runs or the driver tells nothing; raise `libvirtError`."""
    domain = connection.lookupByUUIDString(uuid)
    try:
        figures = domain.jobStats(0)
    except libvirt.libvirtError as error:
        if errors.numbers(error)[0] in _TELLS_NOTHING:
            return None
        raise
    if figures.get("type") not in _RUNS:
        return None
    return JobProgress(
        total=int(figures.get(libvirt.VIR_DOMAIN_JOB_DATA_TOTAL, 0)),
        processed=int(figures.get(libvirt.VIR_DOMAIN_JOB_DATA_PROCESSED, 0)),
        remaining=int(figures.get(libvirt.VIR_DOMAIN_JOB_DATA_REMAINING, 0)),
        elapsed_ms=int(figures.get(libvirt.VIR_DOMAIN_JOB_TIME_ELAPSED, 0)),
    )


def abort(connection: Any, uuid: str) -> None:
    """Ask for the job to be given up; raise `libvirtError`, 55 where none runs. Returns at once, the job's call later."""
    connection.lookupByUUIDString(uuid).abortJob()
