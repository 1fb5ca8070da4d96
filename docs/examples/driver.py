"""A driver of one's own: libvirt's, with a rule of the house: what is called keep-… cannot be undefined through it.

A package makes it known to workers in its pyproject.toml; the name is the scheme of its URIs (`careful+qemu:///system`):

    [project.entry-points."virtbus.drivers"]
    "careful+qemu" = "driver:Careful"
"""

from orchestrator.protocol.verb import Args
from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.port import Rejected, Tag


class Careful(LibvirtDriver):
    """Checks what it is asked first; all else is libvirt's driver."""

    def __init__(self, uri: str) -> None:
        """`uri` is libvirt's own, with `careful+` before it."""
        super().__init__(uri.removeprefix("careful+"))

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Raise `Rejected` for what the rule forbids, and what libvirt's driver raises for the rest."""
        seen = self.look(uuid) if verb == "undefine" else None
        if seen is not None and seen.name.startswith("keep-"):
            raise Rejected(f"domain {seen.name!r} is to be kept")
        super().run(verb, uuid, args, tag)
