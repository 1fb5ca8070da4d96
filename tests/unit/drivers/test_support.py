"""What libvirt's drivers are said to have and to lack."""

from __future__ import annotations

import pytest

from orchestrator.protocol.verb import VERBS
from workers.drivers.libvirt import support, verbs


def test_the_table_speaks_of_verbs_that_exist() -> None:
    """And of nothing else."""
    for driver in support.SUPPORT.values():
        assert set(driver.lacks) <= {verb.name for verb in VERBS.values() if verb.kind == "verb"} & set(verbs.VERBS)
        assert driver.types


def test_only_what_tests_run_counts_as_exercised() -> None:
    """The others stand in the table as libvirt's own tables have them."""
    assert {"QEMU", "LXC", "TEST"} == {name for name, driver in support.SUPPORT.items() if driver.exercised}


@pytest.mark.parametrize(
    ("driver", "silent"), [("VBOX", True), ("ESX", True), ("Hyper-V", True), ("Xen", False), ("bhyve", False), ("vz", False)]
)
def test_drivers_without_events_are_known(driver: str, silent: bool) -> None:
    """They are polled."""
    assert silent is not support.of(driver).events


def test_what_lacks_is_named_and_a_driver_that_nobody_knows_lacks_nothing() -> None:
    """It says itself what it has not."""
    assert "libvirt's driver has no virDomainReset" == support.of("LXC").missing("reset")
    assert "" == support.of("QEMU").missing("reset")
    assert "" == support.of("something new").missing("reset")
