"""What `virtbus doctor` asks of a host: that its hypervisors are there, and that a guest really boots under KVM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workers import checkup, kvm

BOOTS = "echo '[    0.0] Linux version 6'; echo '[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs'; sleep 60"
HANGS = "echo 'Probing EDD (edd=off to disable)... ok'; sleep 60"
DIES = "echo 'Could not access KVM kernel module: Permission denied' >&2; exit 1"


def emulator(script: str, tmp_path: Path) -> kvm.Machine:
    """Return a machine whose emulator is a script."""
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o755)
    return kvm.Machine(str(program), (), "ttyS0")


def test_a_kernel_that_comes_to_its_panic_has_booted(tmp_path: Path) -> None:
    """It has no root file system, and needs none for that; the emulator is ended at once."""
    after_s, heard = kvm.boots(emulator(BOOTS, tmp_path), Path("vmlinuz"), 30.0)
    assert after_s is not None
    assert "Kernel panic" in heard


def test_a_kernel_that_hangs_has_not_booted(tmp_path: Path) -> None:
    """The last that was heard tells where."""
    assert kvm.boots(emulator(HANGS, tmp_path), Path("vmlinuz"), 0.5) == (None, "Probing EDD (edd=off to disable)... ok")


def test_an_emulator_that_does_not_start_says_why(tmp_path: Path) -> None:
    """It is not waited for."""
    assert kvm.boots(emulator(DIES, tmp_path), Path("vmlinuz"), 30.0) == (None, "Could not access KVM kernel module: Permission denied")


def test_a_hypervisor_that_answers_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON for each that is asked for, in their order."""
    pytest.importorskip("libvirt")
    checkup.main(["--hypervisor", "test:///default", "--hypervisor", "test:///nowhere.xml"])
    well, ill = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (well["verdict"], ill["verdict"]) == ("ok", "fail")
    assert "types test" in well["said"]
    assert ill["remedy"]


def test_without_the_device_there_is_no_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The remedy names what must be turned on, and what works meanwhile."""
    monkeypatch.setattr(checkup, "DEVICE", tmp_path / "kvm")
    found = checkup.kvm(None, 1.0)
    assert (found.verdict, found.said) == ("fail", f"there is no {tmp_path}/kvm")
    assert "emulation" in found.remedy


def test_without_a_kernel_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That is a warning: nothing is known."""
    (tmp_path / "kvm").write_text("")
    monkeypatch.setattr(checkup, "DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(checkup, "BOOT", tmp_path)
    monkeypatch.setattr(checkup, "machine", lambda _: emulator(BOOTS, tmp_path))
    assert checkup.kvm(None, 1.0).said == "not tried: there is no kernel here to boot"
    (tmp_path / "vmlinuz-6.1").write_text("")
    assert checkup.kvm(None, 30.0).said.startswith("a guest kernel (vmlinuz-6.1) boots under it in ")
