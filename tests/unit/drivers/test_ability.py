"""What a hypervisor claims and what it can really do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from workers.drivers.libvirt import ability

NOBODY = 65534


class Hypervisor:
    """A connection with capabilities as QEMU's driver writes them; `runs` are the types it has domain capabilities for."""

    def __init__(
        self, *, uid: int = 0, gid: int = 0, runs: tuple[str, ...] = ("qemu", "kvm"), refusal: int = 8, kind: str = "QEMU"
    ) -> None:
        self.uid, self.gid = uid, gid
        self.runs = runs
        self.refusal = refusal
        self.kind = kind

    def getCapabilities(self) -> str:  # noqa: N802 - libvirt's name
        """Return two guests, as on a machine that runs 64 and 32 bits."""
        arch = "<guest><arch name='{}'><domain type='qemu'/><domain type='kvm'/></arch></guest>"
        label = f"<secmodel><model>dac</model><baselabel type='kvm'>+{self.uid}:+{self.gid}</baselabel></secmodel>"
        host = f"<host><cpu><arch>x86_64</arch></cpu><secmodel><model>none</model></secmodel>{label}</host>"
        return f"<capabilities>{host}{arch.format('x86_64')}{arch.format('i686')}</capabilities>"

    def getDomainCapabilities(self, *asked: Any) -> str:  # noqa: N802 - libvirt's name
        """Refuse what it does not run."""
        if asked[3] not in self.runs:
            error = libvirt.libvirtError("no")
            error.err = (self.refusal, 10, "no", 2, None, None, None, -1, -1)
            raise error
        return "<domainCapabilities/>"

    def getInfo(self) -> list[Any]:  # noqa: N802 - libvirt's name
        """Return model, MiB, processors and more."""
        return ["x86_64", 2048, 4, 2600, 1, 1, 4, 1]

    def getVersion(self) -> int:  # noqa: N802 - libvirt's name
        """Return 7.2.22, packed."""
        return 7_002_022

    def getType(self) -> str:  # noqa: N802 - libvirt's name
        """Return the driver's name."""
        return self.kind


def types(hypervisor: Hypervisor, uri: str = "qemu:///system") -> list[str]:
    """Return the types that it is found to run."""
    return ability.read(hypervisor, uri, []).types


def test_figures_are_the_hosts() -> None:
    """Each type once, memory in KiB, a version that people can read."""
    found = ability.read(Hypervisor(), "qemu:///system", ["lifecycle"])
    assert (["qemu", "kvm"], "7.2.22", "x86_64", 4, 2097152) == (found.types, found.version, found.arch, found.cpus, found.memory_kib)
    assert found.events == ["lifecycle"]


def test_a_type_without_domain_capabilities_does_not_run() -> None:
    """Capabilities list what was compiled in; a driver that cannot say finer is believed."""
    assert types(Hypervisor(runs=("qemu",))) == ["qemu"]
    assert types(Hypervisor(runs=(), refusal=libvirt.VIR_ERR_NO_SUPPORT)) == ["qemu", "kvm"]


def test_containers_have_no_reset_and_cannot_be_saved() -> None:
    """One API does not mean one ability."""
    qemu, lxc = (ability.read(Hypervisor(kind=kind), "x:///", []).verbs for kind in ("QEMU", "LXC"))
    assert set(qemu) - set(lxc) == {"reset", "managed-save", "managed-save-remove"}


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o600, 0, 0, True),  # root opens all
        (0o600, NOBODY, NOBODY, False),
        (0o666, NOBODY, NOBODY, True),
        (0o660, NOBODY, NOBODY, False),
        (0o660, NOBODY, -1, True),  # -1: the group of the device
        (0o640, NOBODY, -1, False),  # to read is not enough
        (0o066, 0, 0, True),
    ],
)
def test_an_embedded_kvm_runs_if_its_user_can_open_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, uid: int, gid: int, expected: bool
) -> None:
    """Libvirt looks at the device as root and QEMU opens it as its user."""
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(mode)
    monkeypatch.setattr(ability, "_KVM", device)
    hypervisor = Hypervisor(uid=uid, gid=device.stat().st_gid if gid < 0 else gid)
    assert expected == ("kvm" in types(hypervisor, "qemu:///embed?root=/x"))
    assert "kvm" in types(hypervisor, "qemu:///system")


def test_no_device_no_embedded_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The type is in the capabilities all the same."""
    monkeypatch.setattr(ability, "_KVM", tmp_path / "none")
    assert types(Hypervisor(), "qemu:///embed?root=/x") == ["qemu"]
