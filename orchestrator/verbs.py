"""A method for each verb that changes a domain, with the arguments that the registry gives it (`orchestrator.protocol.verb`).

Written out, so that editors complete them and the reference can show them; a test holds them to the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from orchestrator.protocol.command import Condition, Result
from orchestrator.protocol.verb import Args, AutostartArgs, XmlArgs

Arguments = Args | Mapping[str, Any] | None
"""A verb's arguments: the struct of the registry, or the same as a mapping; None where all may be left out."""


class Options(TypedDict, total=False):
    """What may go with any command.

    timeout: seconds that it has, else the verb's own default. id: its idempotency key, else a fresh one: repeated under it, the
    command has no second effect. condition: what must hold when its turn comes, else `Conflict` and nothing done.
    actor: who asked, for the audit trail. project: whose domain it is, else the client's.
    """

    timeout: float | None
    id: str | None
    condition: Condition | None
    actor: str | None
    project: str | None


class Verbs(ABC):
    """Commands to one domain, given by its UUID or name; each is awaited to its end.

    Each takes the keywords of `Options`, returns a `Result` (`changed` is False where the goal held already), and raises the error
    that the command ended with: `NotFound`, `Conflict`, `DeadlineExceeded` … of `orchestrator.protocol.error`.
    """

    @abstractmethod
    async def call(self, domain: str, verb: str, args: Arguments = None, **options: Unpack[Options]) -> Result:
        """Send the command `verb` with `args`, await its end and return its result, or raise the error that it ended with."""

    async def define_xml(
        self, domain: str, xml: str, *, node: str | None = None, hypervisor: str | None = None, **options: Unpack[Options]
    ) -> Result:
        """Define a persistent domain from libvirt's domain XML, or redefine it.

        domain: the name or UUID that it shall have; where the XML lacks it, it is filled in.
        node: the worker that shall host it, else one is chosen. hypervisor: URI or type, where a node has several.
        """
        return await self.call(domain, "define-xml", XmlArgs(xml=xml, node=node, hypervisor=hypervisor), **options)

    async def create_xml(
        self, domain: str, xml: str, *, node: str | None = None, hypervisor: str | None = None, **options: Unpack[Options]
    ) -> Result:
        """Define a persistent domain from libvirt's domain XML and start it. Arguments as for `define_xml`."""
        return await self.call(domain, "create-xml", XmlArgs(xml=xml, node=node, hypervisor=hypervisor), **options)

    async def start(self, domain: str, **options: Unpack[Options]) -> Result:
        """Boot a domain."""
        return await self.call(domain, "start", **options)

    async def shutdown(self, domain: str, **options: Unpack[Options]) -> Result:
        """Ask the guest to shut down, and wait until it has."""
        return await self.call(domain, "shutdown", **options)

    async def destroy(self, domain: str, **options: Unpack[Options]) -> Result:
        """Stop a domain at once, as if the power were cut; its definition stays."""
        return await self.call(domain, "destroy", **options)

    async def reboot(self, domain: str, **options: Unpack[Options]) -> Result:
        """Ask the guest to reboot."""
        return await self.call(domain, "reboot", **options)

    async def reset(self, domain: str, **options: Unpack[Options]) -> Result:
        """Reset a domain, as if the reset button were pressed."""
        return await self.call(domain, "reset", **options)

    async def suspend(self, domain: str, **options: Unpack[Options]) -> Result:
        """Pause a domain's processors."""
        return await self.call(domain, "suspend", **options)

    async def resume(self, domain: str, **options: Unpack[Options]) -> Result:
        """Let a paused domain run on."""
        return await self.call(domain, "resume", **options)

    async def managed_save(self, domain: str, **options: Unpack[Options]) -> Result:
        """Save a domain's memory to its host and stop it; `start` goes on from there.

        A job: it tells its progress (`CommandProgress`), and can be cancelled while it runs.
        """
        return await self.call(domain, "managed-save", **options)

    async def managed_save_remove(self, domain: str, **options: Unpack[Options]) -> Result:
        """Remove what `managed_save` saved, so that `start` boots."""
        return await self.call(domain, "managed-save-remove", **options)

    async def undefine(self, domain: str, **options: Unpack[Options]) -> Result:
        """Remove a domain's definition; a running one becomes transient."""
        return await self.call(domain, "undefine", **options)

    async def set_autostart(self, domain: str, enabled: bool = True, **options: Unpack[Options]) -> Result:
        """Say whether the host starts a domain when it boots."""
        return await self.call(domain, "set-autostart", AutostartArgs(enabled=enabled), **options)
