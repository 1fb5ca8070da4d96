"""The archive is what others read as cpio."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from demo.cpio import archive

CPIO = shutil.which("cpio")
TREE = {"bin": None, "bin/tool": b"seven b", "empty": b"", "lib": None}


def test_an_archive_has_the_form_that_the_kernel_reads() -> None:
    """Every record begins on a multiple of four with the magic number, and the trailer ends it."""
    raw = archive(TREE)
    starts = [at for at in range(0, len(raw), 4) if raw[at : at + 6] == b"070701"]
    names = [raw[at + 110 : raw.index(b"\0", at + 110)].decode() for at in starts]
    assert [*TREE, "TRAILER!!!"] == names
    assert len(raw) % 4 == 0


@pytest.mark.skipif(CPIO is None, reason="cpio is not installed")
def test_cpio_unpacks_the_same_tree(tmp_path: Path) -> None:
    """Directories, contents and the right to execute come back."""
    subprocess.run([str(CPIO), "-id", "--quiet"], input=archive(TREE), cwd=tmp_path, check=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"seven b"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "lib").is_dir()
