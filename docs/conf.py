"""How Sphinx builds this documentation: `make docs`."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "virtbus"
author = "the virtbus authors"
release = version = installed("virtbus")

extensions = ["myst_parser", "sphinx.ext.autodoc", "docs.extensions.docstrings", "docs.extensions.registry"]
exclude_patterns = ["_build", "examples/node_modules", "extensions"]
nitpicky = False
default_role = "code"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "virtbus"
html_show_sphinx = False
html_copy_source = False
