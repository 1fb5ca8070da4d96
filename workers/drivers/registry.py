"""From a URI to the driver for it: by its scheme, of somebody's own or libvirt's.

    register("mine", MineDriver)                  # in the program
    [project.entry-points."virtbus.drivers"]      # or in a package: the name is the scheme
    mine = "my_package.driver:MineDriver"

A factory gets the URI as given and returns a `Driver`, not yet opened. What is registered goes before what a package offers, and
that before libvirt, which takes every other scheme.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from orchestrator.protocol.error import Invalid, Unsupported
from workers.drivers.port import Driver

GROUP = "virtbus.drivers"
"""The group of entry points: a scheme, and the factory it refers to."""

Factory = Callable[[str], Driver]

_registered: dict[str, Factory] = {}


def register(scheme: str, factory: Factory) -> None:
    """Have `factory` make the drivers of `scheme` in this process from now on."""
    _registered[scheme] = factory


def driver_for(uri: str) -> Driver:
    """Return a driver for `uri`, not yet open.

    Raises `Invalid` if the package that offers it is broken, `Unsupported` where libvirt-python is needed and missing.
    """
    scheme = uri.partition(":")[0]
    factory = _registered.get(scheme) or _offered(scheme)
    return factory(uri) if factory is not None else _libvirt(uri)


def _offered(scheme: str) -> Factory | None:
    for point in entry_points(group=GROUP, name=scheme):
        try:
            factory: Factory = point.load()
        except (ImportError, AttributeError) as error:
            raise Invalid(f"entry point {point.name!r} of {GROUP} cannot be loaded: {error}; mend or remove its package") from error
        return factory
    return None


def _libvirt(uri: str) -> Driver:
    try:
        from workers.drivers.libvirt import LibvirtDriver  # noqa: PLC0415  an extra of the distribution
    except ImportError as error:
        raise Unsupported(f"libvirt cannot be used: {error}; pip install 'virtbus[worker]'") from error
    return LibvirtDriver(uri)
