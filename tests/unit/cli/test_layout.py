"""Where `virtbus up` keeps what, and that each node has a hypervisor of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.cli import layout
from orchestrator.cli.layout import ROOT_LIMIT, Layout, is_private
from orchestrator.protocol.error import Conflict


def test_each_node_has_a_test_driver_of_its_own(tmp_path: Path) -> None:
    """A description without domains in the node's directory, which libvirt opens privately."""
    made = Layout(tmp_path)
    uris = [made.hypervisor("test:///default", node) for node in ("n1", "n2")]
    assert uris == [f"test://{tmp_path}/{node}/test.xml" for node in ("n1", "n2")]
    assert (tmp_path / "n1" / "test.xml").read_text().split() == ["<node>", "</node>"]


def test_a_root_too_long_for_sockets_is_made_elsewhere_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual machines outlive `up`, so the next start must find the same root."""
    monkeypatch.setattr(layout, "_RUN", tmp_path)
    home = tmp_path / ("long" * 10)
    home.mkdir()
    first = Layout(home).hypervisor("qemu:///embed", "n1")
    root = Path(first.removeprefix("qemu:///embed?root="))
    assert root.parent == tmp_path
    shutil.rmtree(root)
    assert Layout(home).hypervisor("qemu:///embed", "n1") == first
    assert (root / "etc" / "qemu.conf").read_text() == 'stdio_handler = "file"\n'


def test_a_root_that_other_users_cannot_reach_is_made_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU runs as a user of its own."""
    monkeypatch.setattr(layout, "_RUN", tmp_path)
    monkeypatch.setattr(layout, "ROOT_LIMIT", 4096)
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    root = Path(Layout(home).hypervisor("qemu:///embed", "n1").removeprefix("qemu:///embed?root="))
    assert root.parent == tmp_path


def test_a_short_root_stays_with_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put where nobody looks for it without need."""
    monkeypatch.setattr(layout, "ROOT_LIMIT", 4096)
    monkeypatch.setattr(layout, "_open_to_all", lambda _: True)
    assert Layout(tmp_path).hypervisor("qemu:///embed", "n1") == f"qemu:///embed?root={tmp_path}/n1/qemu"
    assert ROOT_LIMIT < 107 - 70


@pytest.mark.parametrize(
    ("uri", "private"), [("test:///default", True), ("test:///a.xml", True), ("qemu:///embed", True), ("qemu:///system", False)]
)
def test_only_hypervisors_inside_the_worker_are_private(uri: str, private: bool) -> None:
    """Two workers over one libvirtd would each take all domains for theirs."""
    assert is_private(uri) is private


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """The second is told who has it; after the first left it may have it."""
    with Layout(tmp_path).held(), pytest.raises(Conflict, match="is in use by another 'virtbus up'"), Layout(tmp_path).held():
        pass
    with Layout(tmp_path).held():
        assert (tmp_path / "up.lock").read_text().isdigit()
