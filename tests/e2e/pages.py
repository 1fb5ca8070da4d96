"""The documentation's commands, taken out of its pages and run as a reader would run them.

A fence says after its language how: `sh run` (must succeed), `sh run until=WORD` (goes on beside what follows, once it has said WORD;
`sh run background` at once), `python run`, `python file=NAME` (is saved under that name), `sh elsewhere=PATH` (that test runs it),
`sh untested` (nobody does: it needs a host or a tool that no test has).
`says=WORD,WORD` holds it to what it prints, in the end.
The blocks of one page share a directory. The broker's port, and hypervisors that a test cannot expect, are replaced; nothing else is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.e2e.shell import ROOT, Going, Shell

_FENCE = re.compile(r"^(`{3,})(\w+)([^\n{}]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)


class Block(msgspec.Struct, frozen=True):
    """A fenced block. marks: the words after its language; one of the form NAME=VALUE with its value, any other with an empty one."""

    page: str
    line: int
    language: str
    marks: Mapping[str, str]
    text: str

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return all pages for readers."""
    return [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "node_modules" not in page.parts)]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    return [
        Block(name, text.count("\n", 0, found.start()) + 1, found[2], _marks(found[3]), found[4]) for found in _FENCE.finditer(text)
    ]


def _marks(words: str) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words.split())}


class Reader:
    """Somebody who follows a page at a terminal. replaced: texts, and what stands for them here."""

    def __init__(self, shell: Shell, replaced: Mapping[str, str]) -> None:
        self._shell = shell
        self._replaced = {**replaced, "4222": str(shell.port), "virtbus up": f"virtbus up --port {shell.port}"}
        self._promised: list[tuple[Going, list[str]]] = []
        for shared in (".venv", "docs"):
            (shell.home / shared).symlink_to(ROOT / shared)

    def read(self, block: Block) -> None:
        """Do what a block is for. It must succeed."""
        text = block.text
        for this, that in self._replaced.items():
            text = text.replace(this, that)
        if "file" in block.marks:
            (self._shell.home / block.marks["file"]).write_text(text)
            return
        command = ("bash", "-euo", "pipefail", "-c", text) if block.language == "sh" else (sys.executable, "-c", text)
        words = list(filter(None, block.marks.get("says", "").split(",")))
        if "until" in block.marks or "background" in block.marks:
            self._promised.append((self._shell.begin(*command, until=block.marks.get("until", "")), words))
        else:
            said = self._shell.run(*command)
            assert all(word in said for word in words), f"{block.place} does not say all of {words}, but {said}"

    def close(self) -> None:
        """At the page's end: wait until what goes on has said what it should."""
        for going, words in self._promised:
            going.until(*words)
