"""Nodes as records: what a worker offers, its lease, and coordinators' own keys (PROTOCOL §2, §7)."""

from __future__ import annotations

import msgspec


class Hypervisor(msgspec.Struct, frozen=True, kw_only=True):
    """One hypervisor of a node and what it can really do."""

    uri: str
    types: list[str]
    version: str
    verbs: list[str]
    events: list[str]
    connected: bool


class Allocated(msgspec.Struct, frozen=True, kw_only=True):
    """What the domains that run on a node may use together."""

    vcpus: int
    memory_kib: int


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's own description: the value in `virt_nodes`. Written after the scan that follows each start.

    projects: those whose domains it serves, none: of any.
    """

    node: str
    epoch: str
    version: str
    hypervisors: list[Hypervisor]
    arch: str
    cpus: int
    memory_kib: int
    free_memory_kib: int
    allocated: Allocated
    domain_count: int
    labels: dict[str, str]
    schedulable: bool
    updated: str
    projects: list[str] = []


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of life: the value in `virt_leases`.

    cursor: sequence in `VIRT_RUN` up to which every command is in the worker's ledger.
    done: sequence up to which every command has its terminal event stored; what may be trimmed.
    """

    node: str
    epoch: str
    cursor: int
    done: int
    updated: str


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinators' cursor: sequences reached in `VIRT_CMD`, `VIRT_RUN`, `VIRT_EVT`, and the leader's epoch."""

    cmd: int
    run: int
    evt: int
    epoch: int


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads the coordinators; `epoch` rises with each change of leader."""

    coordinator: str
    epoch: int
    updated: str
