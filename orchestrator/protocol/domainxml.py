"""The little of libvirt's domain XML that both sides must read: who the domain is and what it needs (libvirt formatdomain).

Expat reads it without loading anything: any DOCTYPE is refused, and size and depth are bounded.
"""

from __future__ import annotations

import xml.parsers.expat
from typing import Any

import msgspec

from orchestrator.protocol import token
from orchestrator.protocol.error import Invalid

MAX_BYTES = 512 * 1024
MAX_DEPTH = 64

_KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "kb": 1000 / 1024, "k": 1, "kib": 1, "mb": 1e6 / 1024, "m": 1024, "mib": 1024}
_KIB |= {"gb": 1e9 / 1024, "g": 1024**2, "gib": 1024**2, "tb": 1e12 / 1024, "t": 1024**3, "tib": 1024**3}


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a domain's XML says of it; `insert_at` is the byte at which the first child of `<domain>` begins."""

    type: str
    name: str | None
    uuid: str | None
    memory_kib: int
    vcpus: int
    insert_at: int


class _Walk:
    """Collects the direct children of `<domain>` that matter."""

    def __init__(self, parser: xml.parsers.expat.XMLParserType) -> None:
        self.parser = parser
        self.depth = 0
        self.kind = ""
        self.insert_at = -1
        self.unit = "kib"
        self.text: dict[str, str] = {}
        self.inside: str | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Invalid(f"xml: nested deeper than {MAX_DEPTH} elements")
        if self.depth == 1:
            if tag != "domain":
                raise Invalid(f"xml: the root element is <{tag}>; it must be <domain>")
            self.kind = attributes.get("type", "")
        elif self.depth == 2:
            if self.insert_at < 0:
                self.insert_at = self.parser.CurrentByteIndex
            if tag in ("name", "uuid", "memory", "vcpu"):
                self.inside = tag
                self.text[tag] = ""
                if tag == "memory":
                    self.unit = attributes.get("unit", "KiB").lower()

    def end(self, _tag: str) -> None:
        if self.depth == 2:
            self.inside = None
        self.depth -= 1

    def characters(self, data: str) -> None:
        if self.inside is not None and self.depth == 2:
            self.text[self.inside] += data


def _no_doctype(*_: Any) -> None:
    raise Invalid("xml: a DOCTYPE is not accepted; remove it")


def identify(document: str) -> Identity:
    """Read who the domain in `document` is; raise `Invalid` where the XML is malformed, too large or too deep, or has a DOCTYPE."""
    raw = document.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise Invalid(f"xml: {len(raw)} bytes; at most {MAX_BYTES} are accepted")
    parser = xml.parsers.expat.ParserCreate("utf-8")
    walk = _Walk(parser)
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.StartElementHandler = walk.start
    parser.EndElementHandler = walk.end
    parser.CharacterDataHandler = walk.characters
    try:
        parser.Parse(raw, True)
    except xml.parsers.expat.ExpatError as error:
        raise Invalid(f"xml: {error}") from error
    name, given = walk.text.get("name", "").strip(), walk.text.get("uuid", "").strip()
    if given and not token.is_uuid(given):
        raise Invalid(f"xml: <uuid> is {given!r}; use the form 01234567-89ab-cdef-0123-456789abcdef")
    return Identity(
        type=walk.kind,
        name=name or None,
        uuid=given.lower() or None,
        memory_kib=_kib(walk.text.get("memory", ""), walk.unit),
        vcpus=_whole(walk.text.get("vcpu", "")) or 1,
        insert_at=walk.insert_at,
    )


def complete(document: str, *, name: str | None, uuid: str) -> str:
    """Return `document` with name and UUID filled in where it lacks them; raise `Invalid` where it contradicts them.

    `name` None: the document must have one. UUIDs compare without case.
    """
    identity = identify(document)
    if identity.uuid not in (None, uuid):
        raise Invalid(f"xml: <uuid> is {identity.uuid}, the subject says {uuid}; they must agree, or leave <uuid> out")
    if identity.name is None and name is None:
        raise Invalid("xml: <name> is missing and nothing else names the domain; add it")
    if name is not None and identity.name not in (None, name):
        raise Invalid(f"xml: <name> is {identity.name!r}, the subject says {name!r}; they must agree, or leave <name> out")
    if identity.insert_at < 0:
        raise Invalid("xml: <domain> is empty; at least <memory> and <os> are needed")
    missing = "" if identity.uuid else f"<uuid>{uuid}</uuid>"
    missing += f"<name>{_escaped(name)}</name>" if identity.name is None and name else ""
    raw = document.encode("utf-8", "surrogatepass")
    return (raw[: identity.insert_at] + missing.encode() + raw[identity.insert_at :]).decode("utf-8", "surrogatepass")


def _escaped(text: str) -> str:
    # xml.sax.saxutils does the same, and loads urllib, http and ssl into every process for it.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _whole(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _kib(text: str, unit: str) -> int:
    return int(_whole(text) * _KIB.get(unit, 1))
