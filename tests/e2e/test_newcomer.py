"""A newcomer's walk on a bare machine: Debian with nothing on it but `make`, the README and the tutorial."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import containers
from tests.containers import BASE, Engine
from tests.e2e.shell import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # it installs everything anew
    pytest.mark.skipif(containers.unavailable() is not None, reason=f"containers: {containers.unavailable()}"),
]

WALK = """
set -eu
mkdir /root/virtbus
tar -xf /given/tree.tar -C /root/virtbus
cd /root/virtbus
apt-get update -qq
apt-get install -qq -y --no-install-recommends make
make demo
.venv/bin/python -m pytest -q tests/e2e/test_docs.py -k 'README or first-vm'
"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Give a podman with a bare Debian."""
    with containers.private_podman() as engine:
        engine.load()
        yield engine


def test_a_newcomer_gets_from_nothing_to_the_end_of_readme_and_tutorial(engine: Engine, tmp_path: Path) -> None:
    """`make demo` installs what is missing and plays to its end; then each command of both pages works."""
    write_tree(tmp_path / "tree.tar")
    # privileged: a machine of one's own may do what a container may not, and QEMU's own sandbox needs it
    said = engine.podman(
        "run", "--rm", "--network=host", "--privileged", "--env=DEBIAN_FRONTEND=noninteractive",
        f"--volume={tmp_path}:/given:ro", BASE, "sh", "-c", WALK,
    )  # fmt: skip
    assert "2 passed" in said.splitlines()[-1], said


def test_in_a_container_without_rights_there_is_a_show_too(engine: Engine, tmp_path: Path) -> None:
    """QEMU starts nothing there, which is found out before; the test driver takes its place, and that is said."""
    write_tree(tmp_path / "tree.tar")
    said = engine.podman(
        "run", "--rm", "--network=host", "--env=DEBIAN_FRONTEND=noninteractive", f"--volume={tmp_path}:/given:ro", BASE,
        "sh", "-c", WALK.partition(".venv/bin/python -m pytest")[0],
    )  # fmt: skip
    assert "checks held" in said, said
    assert "libvirt's test driver" in said, said


def write_tree(archive: Path) -> None:
    """Write this project's files as a checkout would have them: what git knows, or would take."""
    git, tar = (shutil.which(tool) or tool for tool in ("git", "tar"))
    listed = subprocess.run(
        [git, "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = "\n".join(name for name in listed.stdout.splitlines() if (ROOT / name).exists())
    subprocess.run([tar, "-cf", str(archive), "-C", str(ROOT), "-T", "-"], input=files, text=True, check=True)
