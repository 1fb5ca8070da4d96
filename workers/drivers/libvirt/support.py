"""What libvirt's drivers have and have not, as its support tables say (https://libvirt.org/hvsupport.html and the drivers themselves).

`exercised` drivers are run by this project's tests, which hold the table to what they do. The others stand here as their tables
do, up to libvirt 9.0, and nobody has tried. A driver that is not here is believed to have everything, and says itself what it has not.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """One driver. lacks: by verb, the call of libvirt's that it has not.

    types: of the domains that it runs. events: whether it tells the life of its domains; where not, it is polled.
    metadata: whether domains can bear ours; where not, they belong to the default project, and instances have no incarnation.
    """

    types: tuple[str, ...]
    lacks: Mapping[str, str] = {}
    events: bool = True
    metadata: bool = True
    exercised: bool = False

    def missing(self, verb: str) -> str:
        """Return what the driver lacks for a verb, in words; '' if nothing."""
        call = self.lacks.get(verb)
        return f"libvirt's driver has no {call}" if call else ""


_NO_RESET = {"reset": "virDomainReset"}
_NO_AUTOSTART = {"set-autostart": "virDomainSetAutostart"}
_NO_VALIDATED_DEFINITION = dict.fromkeys(("define-xml", "create-xml"), "virDomainDefineXMLFlags")
_NO_PAUSE = {"suspend": "virDomainSuspend", "resume": "virDomainResume"}
_NO_MANAGED_SAVE = {"managed-save": "virDomainManagedSave", "managed-save-remove": "virDomainManagedSaveRemove"}
_VZ = Support(types=("vz", "parallels"), lacks=_NO_RESET | _NO_AUTOSTART, metadata=False)

SUPPORT: Mapping[str, Support] = {
    "QEMU": Support(types=("qemu", "kvm"), exercised=True),
    "LXC": Support(types=("lxc",), lacks=_NO_RESET | _NO_MANAGED_SAVE, exercised=True),
    "TEST": Support(types=("test",), exercised=True),
    "Xen": Support(types=("xen",), lacks=_NO_RESET),
    "VBOX": Support(types=("vbox",), lacks=_NO_RESET | _NO_AUTOSTART | _NO_MANAGED_SAVE, events=False, metadata=False),
    "ESX": Support(types=("vmware",), lacks=_NO_RESET | _NO_MANAGED_SAVE, events=False, metadata=False),
    "BHYVE": Support(types=("bhyve",), lacks=_NO_RESET | _NO_PAUSE | _NO_MANAGED_SAVE | {"reboot": "virDomainReboot"}),
    "vz": _VZ,
    "Parallels": _VZ,
    "Hyper-V": Support(types=("hyperv",), lacks=_NO_VALIDATED_DEFINITION, events=False, metadata=False),
}
"""By the name that a connection gives its driver."""

UNKNOWN = Support(types=())


def of(driver: str) -> Support:
    """Return what is known of a driver, by the name that its connection gives; case does not matter."""
    return next((support for name, support in SUPPORT.items() if name.casefold() == driver.casefold()), UNKNOWN)
