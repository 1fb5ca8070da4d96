"""Lets autodoc read docstrings as they are written here: plain English, with code indented and words of code in single backticks."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

from orchestrator.cli import schemas


def setup(app: Sphinx) -> dict[str, bool]:
    """Ask autodoc for each docstring before it is parsed."""
    app.connect("autodoc-process-docstring", _prepare)
    return {"parallel_read_safe": True}


def _prepare(_app: Sphinx, _what: str, _name: str, _of: Any, _options: Any, lines: list[str]) -> None:
    """Mark indented blocks as code: a `::` before each, which reStructuredText wants."""
    marked: list[str] = []
    code = False
    for line in schemas.plain("\n".join(lines)).split("\n"):
        indented = line.startswith("    ")
        if indented and not code:
            marked += ["", "::", ""]
        code = indented or (code and not line.strip())
        marked.append(line)
    lines[:] = [*marked, ""]
