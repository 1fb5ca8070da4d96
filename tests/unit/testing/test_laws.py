"""The laws of a driver hold for poor hypervisors too: what they lack they say, and what they have they do."""

from __future__ import annotations

import pytest

from tests import hypervisors
from workers.testing import Bench, DriverContract, MemoryDriver


class TestSilent(DriverContract):
    """A hypervisor without events."""

    @pytest.fixture
    def bench(self) -> Bench:
        """Return a bench whose driver tells nothing."""
        return Bench(driver=MemoryDriver(tells=False), xml=hypervisors.test_xml)


class TestPoor(DriverContract):
    """A hypervisor that can do little."""

    @pytest.fixture
    def bench(self) -> Bench:
        """Return a bench whose driver lacks some verbs."""
        return Bench(driver=MemoryDriver(lacks=("suspend", "resume", "set-autostart", "reset", "reboot")), xml=hypervisors.test_xml)
