"""Lists in pages."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.control.paging import MAX_PAGE, page
from orchestrator.protocol import codec


def walked(rows: list[tuple[str, Any]], limit: int) -> list[Any]:
    """Return what one gets who reads page after page."""
    found: list[Any] = []
    after = ""
    while True:
        answer = codec.decode(codec.encode(page("rows", rows, limit=limit, after=after)), dict)
        found += answer["rows"]
        if "next" not in answer:
            return found
        after = answer["next"]


@given(st.sets(st.text(min_size=1, max_size=5)), st.integers(1, 7))
def test_page_after_page_gives_every_row_once_in_order(keys: set[str], limit: int) -> None:
    """Whatever the size of a page."""
    assert sorted(keys) == walked([(key, key) for key in keys], limit)


def test_a_page_is_no_larger_than_an_answer_may_be() -> None:
    """A row that is larger by itself comes alone."""
    rows = [("a", "x" * (MAX_PAGE + 1)), ("b", "y" * (MAX_PAGE // 2)), ("c", "z" * (MAX_PAGE // 2))]
    sizes = [len(page("rows", rows, limit=500, after=after)["rows"]) for after in ("", "a", "b")]
    assert [1, 1, 1] == sizes
    assert [value for _, value in rows] == walked(rows, 500)
