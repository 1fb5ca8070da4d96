"""What the documentation tells its readers to type works as it says, and the documentation can be built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.pages import Block, Reader, blocks, pages
from tests.e2e.shell import ROOT, Shell


def replaced(home: Path) -> dict[str, str]:
    """Return what stands for hypervisors that not every machine has: libvirt's test driver, twice. A credentials file is there too."""
    (home / "lab.creds").touch()
    for kind in ("qemu", "lxc"):
        (home / f"{kind}.xml").write_text("<node>\n</node>\n")
    return {"qemu:///system": f"test://{home}/qemu.xml", "lxc:///": f"test://{home}/lxc.xml", "type='kvm'": "type='test'"}


def spoken(page: Path) -> list[Block]:
    """Return the blocks of a page that a reader types in or saves."""
    return [block for block in blocks(page) if {"run", "file"} & set(block.marks)]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if spoken(page)], ids=lambda page: page.stem)
def test_what_a_page_says_works(page: Path, tmp_path: Path) -> None:
    """From its top to its end, in one directory."""
    with Shell(tmp_path) as shell:
        reader = Reader(shell, replaced(tmp_path))
        for block in spoken(page):
            reader.read(block)
        reader.close()


def test_every_command_is_run() -> None:
    """Here, or by the test that the page names; but for what says that nobody runs it: it needs a host or a tool that no test has."""
    shell = [block for page in pages() for block in blocks(page) if block.language in ("sh", "bash", "shell", "console")]
    assert shell
    assert [] == [block.place for block in shell if not {"run", "elsewhere", "untested"} & set(block.marks)]
    assert [] == [block.place for block in shell if "elsewhere" in block.marks and not (ROOT / block.marks["elsewhere"]).is_file()]


def test_the_documentation_can_be_built(tmp_path: Path) -> None:
    """Without a warning, from an empty directory."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (0, "") == (built.returncode, built.stderr)
