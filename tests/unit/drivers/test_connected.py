"""Laws of the connection that a verb of one's own is lent."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.port import Happening, Lost, Missing


class Deaf:
    """Listens to nothing."""

    def happened(self, happening: Happening) -> None:
        """Take no notice."""

    def lost(self, reason: str) -> None:
        """Take no notice."""


def test_it_is_libvirts_own_and_its_errors_come_out_as_the_ports(tmp_path: Path) -> None:
    """While the driver is open, and not after."""
    file = tmp_path / "node.xml"
    file.write_text("<node/>")
    driver = LibvirtDriver(f"test://{file}")
    driver.open(Deaf())
    with driver.connected() as connection:
        assert connection.getType() == "TEST"
    with pytest.raises(Missing), driver.connected() as connection:
        connection.lookupByName("nobody")
    driver.close()
    with pytest.raises(Lost), driver.connected():
        raise AssertionError
