"""Domains as records: what a worker observes, and who owns one (PROTOCOL §2, §6)."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["running", "blocked", "paused", "shutdown", "shutoff", "crashed", "pmsuspended", "nostate", "unknown"]
Role = Literal["owner", "incoming", "former"]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """A domain as its hypervisor says it is: the value in `virt_domains` (PROTOCOL §6)."""

    uuid: str
    name: str
    project: str
    node: str
    hypervisor: str
    type: str
    state: State
    reason: str
    persistent: bool
    autostart: bool
    vcpus: int
    memory_kib: int
    labels: dict[str, str]
    generation: int
    incarnation: str | None
    role: Role
    epoch: str
    sequence: str
    updated: str
    saved: bool = False
    """Whether there is an image of a managed save, from which `start` goes on."""


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """A node that owned the domain, and until when (RFC 3339)."""

    node: str
    until: str


class Owner(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a domain lives: the value in `virt_owners`.

    epoch rises by one with each change of node and fences orders of the owner before;
    id is the command that made the record, so that its repeat goes to the same node;
    name is what that command calls the domain, known before the node has seen it.
    """

    project: str
    node: str
    epoch: int
    id: str
    name: str | None = None
    former: list[Former] = []
