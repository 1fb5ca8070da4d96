"""Which hypervisor of a node a new domain is for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.protocol.error import Unsupported
from workers.domain.choice import Offer, choose

QEMU = Offer(uri="qemu:///system", types=["qemu", "kvm"], works=True)
LXC = Offer(uri="lxc:///", types=["lxc"], works=True)
REMOTE = Offer(uri="qemu+tls://far/system", types=["qemu"], works=True)


def chosen(offers: Sequence[Offer], type: str, wanted: str | None = None) -> list[str]:
    """Return the URIs, best first."""
    return [one.uri for one in choose(offers, wanted=wanted, type=type)]


def away(offer: Offer, types: Sequence[str] | None) -> Offer:
    """Return it as it is when it does not work; types None: it never did."""
    return Offer(uri=offer.uri, types=types, works=False)


@pytest.mark.parametrize(
    ("type", "wanted", "expected"),
    [
        ("kvm", None, [QEMU]),
        ("lxc", None, [LXC]),
        ("qemu", None, [QEMU, REMOTE]),
        ("qemu", "qemu", [QEMU, REMOTE]),
        ("qemu", REMOTE.uri, [REMOTE]),
        ("", None, [QEMU, LXC, REMOTE]),
        ("", "lxc", [LXC]),
    ],
)
def test_the_wish_goes_first_and_then_the_type(type: str, wanted: str | None, expected: list[Offer]) -> None:
    """In the order given where several remain; XML without a type is for the hypervisor to refuse."""
    assert [one.uri for one in expected] == chosen([QEMU, LXC, REMOTE], type, wanted)


def test_what_works_goes_before_what_does_not() -> None:
    """And what is known to run the type before what was never reached."""
    assert [REMOTE.uri, QEMU.uri] == chosen([away(QEMU, ["qemu"]), REMOTE], "qemu")
    assert [QEMU.uri, LXC.uri] == chosen([away(LXC, None), away(QEMU, ["qemu"])], "qemu")


def test_what_was_never_reached_may_run_anything() -> None:
    """It is waited for, rather than refused for."""
    assert [LXC.uri] == chosen([QEMU, away(LXC, None)], "xen")
    assert [LXC.uri] == chosen([QEMU, away(LXC, None)], "xen", "xen")


def test_the_only_hypervisor_is_asked_whatever_the_type() -> None:
    """It says no itself, in the words that its users know."""
    assert [QEMU.uri] == chosen([QEMU], "hvf")


@pytest.mark.parametrize(
    ("offers", "type", "wanted", "words"),
    [
        ([], "qemu", None, "this node has no hypervisor"),
        ([QEMU, LXC], "xen", None, r"here runs domains of type 'xen'; there is qemu:///system \(qemu, kvm\), lxc:/// \(lxc\)"),
        ([QEMU, LXC], "qemu", "xen", r"args\.hypervisor: this node has no 'xen'; it has qemu"),
        ([QEMU, LXC], "qemu", "lxc", r"type 'qemu'; there is lxc:/// \(lxc\)"),
        ([QEMU, away(LXC, None)], "lxc", "qemu:///system", "type 'lxc'; there is qemu:///system"),
    ],
)
def test_a_refusal_names_what_lacks_and_what_there_is(offers: list[Offer], type: str, wanted: str | None, words: str) -> None:
    """So that people know what to change."""
    with pytest.raises(Unsupported, match=words) as refused:
        choose(offers, wanted=wanted, type=type)
    assert "none" == refused.value.outcome


@given(st.permutations([QEMU, LXC, REMOTE]), st.sampled_from(["qemu", "kvm", "lxc", ""]))
def test_whatever_is_chosen_runs_the_type(offers: list[Offer], type: str) -> None:
    """In any order of the offers."""
    assert all(not type or type in (one.types or ()) for one in choose(offers, wanted=None, type=type))
