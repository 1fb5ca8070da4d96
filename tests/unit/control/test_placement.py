"""Where a new domain goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.control.placement import Candidate, Want, place
from orchestrator.protocol.error import NoCapacity, NodeUnavailable, NotFound, Unsupported
from tests.unit.control.records import hypervisor, node

WANT = Want(verb="create-xml", type="test", memory_kib=1024)


def wanting(**changes: str) -> Want:
    """Return a want with changes."""
    return Want(**{"verb": "create-xml", "type": "test", "memory_kib": 1024, **changes})  # type: ignore[arg-type]  # plain values


def test_the_node_with_most_free_memory_is_chosen() -> None:
    """Of those that can."""
    small, big = Candidate(node=node("a", free_memory_kib=1), living=True), Candidate(node=node("b", free_memory_kib=2), living=True)
    assert "b" == place(WANT, [small, big])


def test_memory_promised_counts_as_used() -> None:
    """Else a burst of new domains would all go to one node."""
    promised = Candidate(node=node("a", free_memory_kib=10), living=True, reserved_kib=9)
    assert "b" == place(WANT, [promised, Candidate(node=node("b", free_memory_kib=2), living=True)])


def test_equal_nodes_are_told_apart_by_domains_then_by_name() -> None:
    """So the same snapshot gives the same node."""
    full, b, a = (Candidate(node=node(name, domain_count=count), living=True) for name, count in (("0", 5), ("b", 1), ("a", 1)))
    assert "a" == place(WANT, [full, b, a])


@given(st.permutations(["a", "b", "c"]))
def test_the_order_of_candidates_does_not_matter(names: list[str]) -> None:
    """A decision depends on the snapshot alone."""
    assert "a" == place(WANT, [Candidate(node=node(name), living=True) for name in names])


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (Candidate(node=node(), living=False), "n1 does not answer"),
        (Candidate(node=node(schedulable=False), living=True), "n1 takes no new domains"),
        (Candidate(node=node(hypervisors=[]), living=True), "n1 has no hypervisor"),
        (Candidate(node=node(hypervisors=[hypervisor(connected=False)]), living=True), "n1 has lost test:///default"),
        (Candidate(node=node(hypervisors=[hypervisor(types=["lxc"])]), living=True), "n1 runs no domains of type 'test' on test:///default"),
        (Candidate(node=node(hypervisors=[hypervisor(verbs=[])]), living=True), "n1 cannot create-xml on test:///default"),
    ],
)
def test_a_refusal_names_what_each_node_lacks(candidate: Candidate, reason: str) -> None:
    """So that people know what to change."""
    with pytest.raises(NoCapacity) as refusal:
        place(WANT, [candidate])
    assert f"no node can take a domain of type 'test': {reason}" == refusal.value.message


def test_a_refusal_names_five_nodes_and_counts_the_others() -> None:
    """A message stays readable in a large fleet."""
    with pytest.raises(NoCapacity, match=r"n0 does not answer; .*n4 does not answer; and 2 more$"):
        place(WANT, [Candidate(node=node(f"n{number}"), living=False) for number in range(7)])


def test_no_nodes_at_all_is_said_so() -> None:
    """It is the first thing that goes wrong in a new installation."""
    with pytest.raises(NoCapacity, match="no node has announced itself yet"):
        place(WANT, [])


@pytest.mark.parametrize("hypervisor_wanted", ["test:///default", "test"])
def test_a_hypervisor_is_named_by_uri_or_type(hypervisor_wanted: str) -> None:
    """Where a node has several."""
    assert "n1" == place(wanting(hypervisor=hypervisor_wanted), [Candidate(node=node(), living=True)])


def test_a_hypervisor_that_no_node_has_is_named_in_the_refusal() -> None:
    """The wish is repeated as it was made."""
    with pytest.raises(NoCapacity, match="n1 has no hypervisor 'xen:///'"):
        place(wanting(hypervisor="xen:///"), [Candidate(node=node(), living=True)])


def test_one_hypervisor_of_a_node_must_be_all_that_is_wanted() -> None:
    """Not one that runs the type, another one that is connected, and a third that knows the verb."""
    mixed = [
        hypervisor(uri="lxc:///", types=["lxc"], verbs=[]),
        hypervisor(uri="qemu:///system", types=["qemu", "kvm"], connected=False),
        hypervisor(),
    ]
    for type, reason in (("qemu", "has lost qemu:///system"), ("lxc", "cannot create-xml on lxc:///")):
        with pytest.raises(NoCapacity, match=f"n1 {reason}$"):
            place(wanting(type=type), [Candidate(node=node(hypervisors=mixed), living=True)])
    assert "n1" == place(WANT, [Candidate(node=node(hypervisors=mixed), living=True)])


def test_a_hypervisor_that_was_never_reached_is_told_beside_what_the_others_lack() -> None:
    """It may run the type; nobody knows."""
    unknown = hypervisor(uri="lxc:///", types=[], connected=False)
    with pytest.raises(NoCapacity, match=r"n1 runs no domains of type .lxc. on test:///default and has lost lxc:///$"):
        place(wanting(type="lxc"), [Candidate(node=node(hypervisors=[hypervisor(), unknown]), living=True)])


def test_only_a_node_that_runs_the_type_is_a_candidate() -> None:
    """However much memory the others have."""
    containers = Candidate(node=node("a", free_memory_kib=1, hypervisors=[hypervisor(uri="lxc:///", types=["lxc"])]), living=True)
    machines = Candidate(node=node("b"), living=True)
    assert "a" == place(wanting(type="lxc"), [containers, machines])
    assert "a" == place(wanting(type="lxc", hypervisor="lxc"), [containers, machines])


def test_a_domain_without_a_type_is_left_for_the_hypervisor_to_refuse() -> None:
    """It knows the right words."""
    assert "n1" == place(wanting(type=""), [Candidate(node=node(), living=True)])


def test_a_named_node_is_taken_even_if_it_is_cordoned() -> None:
    """Who names it means it."""
    cordoned = Candidate(node=node("a", schedulable=False), living=True)
    assert "a" == place(wanting(node="a"), [Candidate(node=node("b"), living=True), cordoned])


def test_a_named_node_that_nobody_knows_is_not_found() -> None:
    """The known ones are named."""
    with pytest.raises(NotFound, match="no node 'x'; known are: n1"):
        place(wanting(node="x"), [Candidate(node=node(), living=True)])
    with pytest.raises(NotFound, match="known are: none"):
        place(wanting(node="x"), [])


def test_a_named_node_that_is_silent_is_unavailable() -> None:
    """Nothing was tried there."""
    with pytest.raises(NodeUnavailable) as refusal:
        place(wanting(node="n1"), [Candidate(node=node(), living=False)])
    assert "none" == refusal.value.outcome


def test_a_named_node_that_cannot_is_unsupported() -> None:
    """No other node is tried instead."""
    with pytest.raises(Unsupported, match="node n1 runs no domains of type 'lxc'"):
        place(wanting(node="n1", type="lxc"), [Candidate(node=node(), living=True)])


def test_a_node_that_serves_some_projects_gets_domains_of_these_only() -> None:
    """Also where it is named."""
    limited, open_to_all = Candidate(node=node("a", projects=["red"]), living=True), Candidate(node=node("b"), living=True)
    assert "b" == place(WANT, [limited, open_to_all])
    assert "a" == place(wanting(project="red"), [limited, open_to_all])
    with pytest.raises(Unsupported, match="node a serves no domains of project 'default'"):
        place(wanting(node="a"), [limited, open_to_all])
