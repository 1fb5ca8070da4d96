"""What a connection's hypervisor is and can really do."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import libvirt
from lxml import etree

from orchestrator.log import get_logger
from workers.drivers.libvirt import support, xml
from workers.drivers.libvirt.session import is_embedded
from workers.drivers.libvirt.verbs import VERBS
from workers.drivers.port import Ability

_KVM = Path("/dev/kvm")
_log = get_logger()


def read(connection: Any, uri: str, events: list[str]) -> Ability:
    """Ask the connection; raise `libvirtError`. `events` are those that could be registered for.

    Types are probed, one by one. Verbs cannot be without a domain to try them on, so they are what libvirt's table gives the driver.
    """
    capabilities = xml.parse(connection.getCapabilities())
    _model, memory_mib, cpus, *_ = connection.getInfo()
    supported = support.of(connection.getType())
    if not supported.exercised:
        _log.info("libvirt.driver.not_exercised", uri=uri, hint="its abilities stand in libvirt's tables; nobody here has tried them")
    missing = {verb: supported.missing(verb) for verb in VERBS}
    return Ability(
        types=[kind for kind in _listed_types(capabilities) if _runs(connection, uri, capabilities, kind)],
        version=_version(connection.getVersion()),
        verbs=[verb for verb in VERBS if not missing[verb]],
        events=events,
        arch=capabilities.findtext("host/cpu/arch") or "",
        cpus=int(cpus),
        memory_kib=int(memory_mib) * 1024,
        lacks={verb: lack for verb, lack in missing.items() if lack},
        metadata=supported.metadata,
    )


def free_memory_kib(connection: Any) -> int:
    """Ask for the host's free memory; raise `libvirtError`.

    The test driver has no host: what it calls free counts KiB as bytes, or is 0 where a file describes it, so its whole counts.
    """
    if connection.getType() == "TEST":
        return int(connection.getInfo()[1]) * 1024
    free = connection.getFreeMemory()
    if not free:  # the binding returns 0 and raises nothing when the call failed
        raise libvirt.libvirtError("virNodeGetFreeMemory() failed")
    return int(free) // 1024


def _listed_types(capabilities: etree._Element) -> list[str]:
    """Return the domain types of the capabilities, each once, in their order."""
    found = (domain.get("type") for domain in capabilities.iterfind("guest/arch/domain"))
    return list(dict.fromkeys(kind for kind in found if kind))


def _runs(connection: Any, uri: str, capabilities: etree._Element, kind: str) -> bool:
    """Tell whether a domain type really runs there: capabilities list what was compiled in as well."""
    if kind == "kvm" and is_embedded(uri) and not _may_use(_KVM, capabilities):
        return False
    try:
        connection.getDomainCapabilities(None, None, None, kind)
    except libvirt.libvirtError as error:
        # A driver without that call has nothing finer than its capabilities; any other answer is a no.
        return bool(error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT)
    return True


def _may_use(device: Path, capabilities: etree._Element) -> bool:
    """Tell whether the user that QEMU runs as can open `device`. Libvirt looks at it as root, and claims what then fails."""
    label = capabilities.findtext("host/secmodel[model='dac']/baselabel[@type='kvm']", "").split(":")
    try:
        uid, gid = (int(part) for part in label)
        status = device.stat()
        groups = {gid} if uid == 0 else {gid, *os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)}
    except (ValueError, OSError, KeyError):
        return False
    needed = 0o006 << (6 if uid == status.st_uid else 3 if status.st_gid in groups else 0)
    return uid == 0 or status.st_mode & needed == needed


def _version(number: int) -> str:
    """Return libvirt's packed version as people write it."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
