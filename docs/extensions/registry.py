"""The directive `made`: a part of the reference, as Markdown, made from the code when the documentation is built."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from docs.extensions import tables


class Made(SphinxDirective):
    """Stands for the part of that name in `tables.PARTS`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return what the part's Markdown says."""
        return self.parse_text_to_nodes(tables.PARTS[self.arguments[0]](), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known."""
    app.add_directive("made", Made)
    return {"parallel_read_safe": True}
