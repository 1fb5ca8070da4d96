"""The verbs: name in the registry to function. A function gets the connection, the domain's UUID, the arguments and the tag.

It blocks, raises `libvirtError` as it comes (the connection translates it), and does nothing twice.
"""

from __future__ import annotations

from workers.drivers.libvirt.verbs.definition import DEFINITION
from workers.drivers.libvirt.verbs.power import POWER
from workers.drivers.libvirt.verbs.saving import SAVING
from workers.drivers.libvirt.verbs.settings import SETTINGS
from workers.drivers.libvirt.verbs.signature import Run

VERBS: dict[str, Run] = {**DEFINITION, **POWER, **SAVING, **SETTINGS}

__all__ = ["VERBS"]
