"""Name to UUID, UUID to node, and the proof of absence."""

from __future__ import annotations

import pytest

from orchestrator.control.locate import Place, one_of, silent, whereabouts
from orchestrator.protocol.error import Conflict, NotFound
from tests.unit.control.records import UUID, lease, node, owner, seen


def test_a_name_means_one_domain_or_none() -> None:
    """Several are a conflict that names them, so that one can be addressed."""
    assert one_of("web1", []) is None
    assert "u1" == one_of("web1", ["u1", "u1"])
    with pytest.raises(Conflict, match="2 domains are called 'web1': u1, u2; use a UUID"):
        one_of("web1", ["u2", "u1"])


def test_the_owner_record_alone_says_where_a_domain_lives() -> None:
    """Whatever nodes show."""
    assert Place(node="n1", fence=3, recorded=True) == whereabouts("p", UUID, owner(), [seen("n2"), seen("n3")])


def test_without_a_record_the_one_node_that_shows_it_has_it() -> None:
    """Guests that come or go in a migration do not count."""
    assert Place(node="n1", fence=1, recorded=False) == whereabouts("p", UUID, None, [seen("n2", role="incoming"), seen()])


def test_on_several_nodes_and_without_a_record_it_is_a_conflict() -> None:
    """Nobody may guess which is the true one."""
    with pytest.raises(Conflict, match="on several nodes: n1, n2"):
        whereabouts("p", UUID, None, [seen("n2"), seen("n1")])


def test_another_projects_domain_is_not_found() -> None:
    """By its record or by what a node shows; its existence is not told."""
    with pytest.raises(NotFound):
        whereabouts("q", UUID, owner(), [])
    with pytest.raises(NotFound):
        whereabouts("q", UUID, None, [seen()])


def test_nothing_known_is_nowhere() -> None:
    """As far as is known."""
    assert whereabouts("p", UUID, None, []) is None


def test_silent_is_who_has_no_lease_or_has_not_scanned_in_its_epoch() -> None:
    """A node's record is written after the scan, so it bears the lease's epoch only then."""
    nodes = [node("n3"), node("n1"), node("n2")]
    assert ["n2", "n3"] == silent(nodes, {"n1": lease("n1"), "n2": lease("n2", epoch="E2")})
