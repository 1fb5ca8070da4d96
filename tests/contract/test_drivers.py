"""Every driver keeps the laws of the port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import hypervisors
from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.port import Rejected
from workers.testing import Bench, DriverContract, MemoryDriver

EMBED_URI = os.environ.get("VIRTBUS_TEST_EMBED_URI", "")
"""Set in the child process that alone may open the embedded root."""


def _no_such_disk(name: str, uuid: str) -> str:
    disk = "<disk type='file'><source file='/nonexistent'/><target dev='vda' bus='virtio'/></disk>"
    return hypervisors.qemu_xml(name, uuid).replace("<devices>", f"<devices>{disk}")


def _no_console(name: str, uuid: str, *, root: Path) -> str:
    return hypervisors.lxc_xml(name, uuid, root=root).replace("<console type='pty'/>", "")


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[hypervisors.Libvirtd]:
    """One libvirtd for all of this module."""
    reason = hypervisors.unavailable()
    if reason is not None:
        pytest.skip(f"a private libvirtd {reason}")
    with hypervisors.private_libvirtd("qemu", "lxc") as daemon:
        yield daemon


class TestMemory(DriverContract):
    """The fake hypervisor."""

    @pytest.fixture
    def bench(self) -> Bench:
        """Return a bench whose faults stand for what cannot start and for a broken connection."""
        driver = MemoryDriver(lacks=("reset",))

        def unstartable(name: str, uuid: str) -> str:
            driver.faults.fail(Rejected("the disk is not there", code=38, domain=18), "start")
            return hypervisors.test_xml(name, uuid)

        def lasting(name: str, uuid: str) -> str:
            driver.faults.hang("managed-save")
            return hypervisors.test_xml(name, uuid)

        cut = partial(driver.sever, "cut")
        return Bench(driver=driver, xml=hypervisors.test_xml, unstartable=unstartable, lasting=lasting, sever=cut)


class TestLibvirtTest(DriverContract):
    """Libvirt's test driver, inside this process."""

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        """Return a bench on the process's shared test hypervisor, held so that its domains outlive the driver's connection."""
        with hypervisors.held("test:///default"):
            yield Bench(driver=LibvirtDriver("test:///default"), xml=hypervisors.test_xml)


@pytest.mark.hypervisor
class TestLibvirtTestBehindADaemon(DriverContract):
    """Libvirt's test driver behind a libvirtd."""

    @pytest.fixture
    def bench(self, libvirtd: hypervisors.Libvirtd) -> Iterator[Bench]:
        """Return a bench on the daemon's test hypervisor, which would die with a broken connection."""
        with libvirtd.held("test"):
            yield Bench(driver=LibvirtDriver(libvirtd.uri("test")), xml=hypervisors.test_xml)


@pytest.mark.hypervisor
class TestLibvirtQemu(DriverContract):
    """QEMU behind a libvirtd."""

    @pytest.fixture
    def bench(self, libvirtd: hypervisors.Libvirtd, tmp_path: Path) -> Bench:
        """Return a bench whose connection breaks with the daemon, while guests run on."""
        driver, lasting = LibvirtDriver(libvirtd.uri("qemu")), partial(hypervisors.lasting_xml, folder=tmp_path)
        return Bench(driver=driver, xml=hypervisors.qemu_xml, unstartable=_no_such_disk, lasting=lasting, sever=libvirtd.restart)


@pytest.mark.hypervisor
class TestLibvirtLxc(DriverContract):
    """Containers behind a libvirtd."""

    @pytest.fixture
    def bench(self, libvirtd: hypervisors.Libvirtd) -> Bench:
        """Return a bench whose connection breaks with the daemon, while containers run on."""
        reason = hypervisors.no_containers()
        if reason is not None:
            pytest.skip(f"containers: {reason}")
        driver = LibvirtDriver(libvirtd.uri("lxc"))
        xml, unstartable = (partial(write, root=libvirtd.root) for write in (hypervisors.lxc_xml, _no_console))
        return Bench(driver=driver, xml=xml, unstartable=unstartable, sever=libvirtd.restart)


if EMBED_URI:

    class TestLibvirtQemuEmbedded(DriverContract):
        """QEMU's driver inside this process, a child of the test below."""

        @pytest.fixture
        def bench(self, tmp_path: Path) -> Bench:
            """Return a bench on the one root that this process may open."""
            lasting = partial(hypervisors.lasting_xml, folder=tmp_path)
            return Bench(driver=LibvirtDriver(EMBED_URI), xml=hypervisors.qemu_xml, unstartable=_no_such_disk, lasting=lasting)

else:

    @pytest.mark.hypervisor
    def test_qemu_inside_a_process_keeps_the_contract() -> None:
        """The same laws, in a child process that opens an embedded root."""
        reason = hypervisors.unavailable()
        if reason is not None:
            pytest.skip(f"an embedded QEMU {reason}")
        with hypervisors.embedded_qemu() as embedded:
            pytest_here = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", "QemuEmbedded", __file__]
            environment = {**os.environ, "VIRTBUS_TEST_EMBED_URI": embedded.uri}
            done = subprocess.run(
                embedded.command(*pytest_here), cwd=Path(__file__).parents[2], env=environment, check=False, capture_output=True, text=True
            )
        assert (0, True) == (done.returncode, " passed" in done.stdout), done.stdout + done.stderr
