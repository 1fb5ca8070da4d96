"""Records to decide on."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.protocol.command import Result
from orchestrator.protocol.domain import Observed, Owner
from orchestrator.protocol.error import Failure
from orchestrator.protocol.node import Allocated, Hypervisor, Lease, Node

UUID = "00000000-0000-4000-8000-000000000001"


def hypervisor(**changes: Any) -> Hypervisor:
    """Return a connected hypervisor that runs domains of type `test`."""
    made = Hypervisor(uri="test:///default", types=["test"], version="9", verbs=["create-xml"], events=[], connected=True)
    return msgspec.structs.replace(made, **changes)


def node(name: str = "n1", **changes: Any) -> Node:
    """Return a node with one hypervisor and a million KiB free."""
    made = Node(
        node=name,
        epoch="E1",
        version="1",
        hypervisors=[hypervisor()],
        arch="x86_64",
        cpus=1,
        memory_kib=2_000_000,
        free_memory_kib=1_000_000,
        allocated=Allocated(vcpus=0, memory_kib=0),
        domain_count=0,
        labels={},
        schedulable=True,
        updated="2026-01-01T00:00:00Z",
    )
    return msgspec.structs.replace(made, **changes)


def lease(name: str = "n1", epoch: str = "E1") -> Lease:
    """Return a lease."""
    return Lease(node=name, epoch=epoch, cursor=0, done=0, updated="2026-01-01T00:00:00Z")


def seen(name: str = "n1", **changes: Any) -> Observed:
    """Return a domain of project `p` as a node shows it."""
    made = Observed(
        uuid=UUID,
        name="web1",
        project="p",
        node=name,
        hypervisor="test:///default",
        type="test",
        state="running",
        reason="",
        persistent=True,
        autostart=False,
        vcpus=1,
        memory_kib=1024,
        labels={},
        generation=0,
        incarnation=None,
        role="owner",
        epoch="E1",
        sequence="0" * 16,
        updated="2026-01-01T00:00:00Z",
    )
    return msgspec.structs.replace(made, **changes)


def owner(name: str = "n1", **changes: Any) -> Owner:
    """Return an owner record of project `p`."""
    return msgspec.structs.replace(Owner(project="p", node=name, epoch=3, id="k1"), **changes)


def result(**changes: Any) -> Result:
    """Return a successful result."""
    return msgspec.structs.replace(Result(id="k1", verb="create-xml", ok=True, node="n1", project="p", duration_ms=1.0), **changes)


def failed(outcome: Any) -> Result:
    """Return a failed result with what is known of its effect."""
    return result(ok=False, error=Failure(code="hypervisor", message="no", retryable=False, outcome=outcome))
