"""`python -m orchestrator.cli`: the same as `virtbus`, for where the script is not on the path."""

from __future__ import annotations

import sys

from orchestrator.cli import main

sys.exit(main())
