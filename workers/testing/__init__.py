"""The laws of a driver, and a fake one, for people who write drivers or embed a worker.

Subclass `DriverContract`, give it a bench, run pytest (which must be installed):

    class TestMine(DriverContract):
        @pytest.fixture
        def bench(self) -> Bench:
            return Bench(driver=MyDriver("mine:///"), xml=my_smallest_domain)

Each law makes domains of its own and removes them. `MemoryDriver` is a driver that keeps every law.
"""

import pytest

for _laws in ("connection", "definition", "metadata", "power", "stage"):
    pytest.register_assert_rewrite(f"workers.testing.{_laws}")

from workers.drivers.memory import MemoryDriver  # noqa: E402 - asserts are rewritten before their modules are imported
from workers.testing.connection import ConnectionLaws  # noqa: E402 - as above
from workers.testing.definition import DefinitionLaws  # noqa: E402 - as above
from workers.testing.metadata import MetadataLaws  # noqa: E402 - as above
from workers.testing.power import PowerLaws  # noqa: E402 - as above
from workers.testing.stage import Bench, Recorder  # noqa: E402 - as above


class DriverContract(DefinitionLaws, PowerLaws, MetadataLaws, ConnectionLaws):
    """All laws of a driver."""


__all__ = ["Bench", "DriverContract", "MemoryDriver", "Recorder"]
