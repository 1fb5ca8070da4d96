"""All laws of a driver in one class. It needs pytest, and nothing else in `workers.testing` but the plugin does."""

from __future__ import annotations

import pytest

for _laws in ("connection", "definition", "jobs", "metadata", "power", "stage"):
    pytest.register_assert_rewrite(f"workers.testing.{_laws}")

from workers.testing.connection import ConnectionLaws  # noqa: E402 - asserts are rewritten before their modules are imported
from workers.testing.definition import DefinitionLaws  # noqa: E402 - as above
from workers.testing.jobs import JobLaws  # noqa: E402 - as above
from workers.testing.metadata import MetadataLaws  # noqa: E402 - as above
from workers.testing.power import PowerLaws  # noqa: E402 - as above


class DriverContract(DefinitionLaws, PowerLaws, JobLaws, MetadataLaws, ConnectionLaws):
    """All laws of a driver. A subclass gives the `bench`; each law makes domains of its own and removes them."""
