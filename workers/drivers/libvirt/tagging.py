"""Putting our metadata into somebody's domain XML: byte by byte, so that libvirt judges and keeps the rest as it was written."""

from __future__ import annotations

import re

import msgspec

from orchestrator.protocol.domainxml import Walk
from orchestrator.protocol.error import Invalid
from workers.drivers.libvirt.xml import LIVE, TAG, written
from workers.drivers.port import Malformed, Tag

_DECLARATION = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml\s.*?\?>", re.DOTALL)
_START_TAG = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")


class _Element(msgspec.Struct):
    """Where an element lies: from `begin` to `inside` its start tag, from `closing` on its end tag, unless `empty`; `end` is behind it."""

    begin: int
    inside: int = 0
    closing: int = 0
    end: int = 0
    empty: bool = False

    def measure(self, raw: bytes) -> None:
        """Find out what the parser does not tell."""
        start = _START_TAG.match(raw, self.begin)
        assert start is not None  # noqa: S101  the parser has seen it
        self.inside = start.end()
        self.empty = raw[self.inside - 2 : self.inside] == b"/>"
        self.end = self.inside if self.empty else raw.index(b">", self.closing) + 1


class _Places(Walk):
    """Finds where metadata is, or could be, and what in it is in our namespaces."""

    depth = 3

    def __init__(self) -> None:
        super().__init__()
        self.child: _Element | None = None
        self.metadata: _Element | None = None
        self.ours: list[_Element] = []
        self._open: list[_Element] = []
        self._within = False

    def opened(self, level: int, space: str, tag: str, attributes: dict[str, str], at: int) -> None:  # noqa: ARG002  as the walk calls it
        element = _Element(at)
        self._open.append(element)
        if level == 2:
            self.child = self.child or element
            self._within = (space, tag) == ("", "metadata")
            if self._within:
                self.metadata = self.metadata or element
        elif level == 3 and self._within and space in (TAG, LIVE):
            self.ours.append(element)

    def closed(self, level: int, at: int) -> None:  # noqa: ARG002  as the walk calls it
        self._open.pop().closing = at


def tagged(document: str, tag: Tag) -> str:
    """Return `document` with `tag` in place of whatever it held in our namespaces; raise `Malformed` as `Walk.over` does `Invalid`.

    Its first line, `<?xml …?>`, goes, since the text is no longer in the encoding that stands there.
    """
    places = _Places()
    try:
        raw = places.over(document)
    except Invalid as error:
        raise Malformed(error.message) from error
    if places.child is None:
        raise Malformed("xml: <domain> is empty; at least <name>, <memory> and <os> are needed")
    edits = [_cut(element, raw) for element in places.ours]
    edits.append(_insertion(places.metadata, places.child, raw, written(tag).encode()))
    declaration = _DECLARATION.match(raw)
    if declaration is not None:
        edits.append((0, declaration.end(), b""))
    for begin, end, text in sorted(edits, reverse=True):
        raw = raw[:begin] + text + raw[end:]
    return raw.decode()


def _cut(element: _Element, raw: bytes) -> tuple[int, int, bytes]:
    element.measure(raw)
    return element.begin, element.end, b""


def _insertion(metadata: _Element | None, child: _Element, raw: bytes, text: bytes) -> tuple[int, int, bytes]:
    if metadata is None:
        return child.begin, child.begin, b"<metadata>" + text + b"</metadata>"
    metadata.measure(raw)
    if metadata.empty:
        return metadata.inside - 2, metadata.inside, b">" + text + b"</metadata>"
    return metadata.inside, metadata.inside, text
