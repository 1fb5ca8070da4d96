"""The little of libvirt's domain XML that both sides must read: who the domain is and what it needs (libvirt formatdomain).

Expat reads it without loading anything: any DOCTYPE is refused, and size and depth are bounded. Documents are edited where
they are, byte by byte, and never written anew, so that libvirt judges what the sender wrote.
"""

from __future__ import annotations

import re
import xml.parsers.expat
from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.protocol import token
from orchestrator.protocol.error import Invalid

MAX_BYTES = 512 * 1024
MAX_DEPTH = 64
MAX_NAME = 1024
"""Letters that a domain's name may have: it stands in each of its events."""

_KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "kb": 1000 / 1024, "k": 1, "kib": 1, "mb": 1e6 / 1024, "m": 1024, "mib": 1024}
_KIB |= {"gb": 1e9 / 1024, "g": 1024**2, "gib": 1024**2, "tb": 1e12 / 1024, "t": 1024**3, "tib": 1024**3}

_VERSION = re.compile(r"1\.[0-9]+\Z")
_BARE_UUID = re.compile(r"[0-9a-fA-F]{32}\Z")
_SCOPE = {"": "", "xml": "http://www.w3.org/XML/1998/namespace"}


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a domain's XML says of it; `insert_at` is the byte at which the first child of `<domain>` begins.

    name: None where there is no such element. uuid: in its usual form, however libvirt lets it be written.
    """

    type: str
    name: str | None
    uuid: str | None
    memory_kib: int
    vcpus: int
    insert_at: int


class Walk:
    """One pass over a document. A subclass gets the elements of the first `depth` levels; names come without their prefixes.

    A prefix that nothing declares is a part of the name, as libxml2 has it.
    """

    depth = 2

    def __init__(self) -> None:
        self._parser = xml.parsers.expat.ParserCreate("utf-8")
        self._level = 0
        self._scopes: list[Mapping[str, str]] = [_SCOPE]

    def over(self, document: str) -> bytes:
        """Go over `document` and return its bytes, to which all places refer.

        Raises `Invalid` where it is malformed, too large or too deep, has a DOCTYPE or declares what nobody can read.
        """
        raw = document.encode("utf-8", "surrogatepass")
        if len(raw) > MAX_BYTES:
            raise Invalid(f"xml: {len(raw)} bytes; at most {MAX_BYTES} are accepted")
        parser = self._parser
        parser.XmlDeclHandler = _check_declaration
        parser.StartDoctypeDeclHandler = _no_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self.text
        try:
            parser.Parse(raw, True)
        except xml.parsers.expat.ExpatError as error:
            raise Invalid(f"xml: {error}") from error
        return raw

    def opened(self, level: int, space: str, tag: str, attributes: dict[str, str], at: int) -> None:
        """Take an element's beginning. level: 1 for the root. space: its namespace. at: the byte at which it begins."""

    def closed(self, level: int, at: int) -> None:
        """Take an element's end. at: the byte at which its end tag begins, if it has one."""

    def text(self, data: str) -> None:
        """Take a piece of text."""

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._level += 1
        if self._level > MAX_DEPTH:
            raise Invalid(f"xml: nested deeper than {MAX_DEPTH} elements")
        if self._level <= self.depth:
            scope = _inner(self._scopes[-1], attributes)
            self._scopes.append(scope)
            self.opened(self._level, *_resolved(tag, scope), attributes, self._parser.CurrentByteIndex)

    def _end(self, _tag: str) -> None:
        if self._level <= self.depth:
            self._scopes.pop()
            self.closed(self._level, self._parser.CurrentByteIndex)
        self._level -= 1


class _Reading(Walk):
    """Collects the direct children of `<domain>` that matter: of several the first, as libvirt does."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = ""
        self.insert_at = -1
        self.unit = "kib"
        self.found: dict[str, str] = {}
        self._inside: str | None = None

    def opened(self, level: int, space: str, tag: str, attributes: dict[str, str], at: int) -> None:
        if level == 1:
            if tag != "domain":
                raise Invalid(f"xml: the root element is <{tag}>; it must be <domain>")
            self.kind = attributes.get("type", "")
            return
        if self.insert_at < 0:
            self.insert_at = at
        if tag in ("name", "uuid", "memory", "vcpu") and not space and tag not in self.found:
            self._inside = tag
            self.found[tag] = ""
            if tag == "memory":
                self.unit = attributes.get("unit", "KiB").lower()

    def closed(self, level: int, at: int) -> None:  # noqa: ARG002  where is of no matter here
        self._inside = None

    def text(self, data: str) -> None:
        if self._inside is not None:
            self.found[self._inside] += data


def identify(document: str) -> Identity:
    """Read who the domain in `document` is; raise `Invalid` as `Walk.over`, and where the name or UUID cannot be one."""
    reading = _Reading()
    reading.over(document)
    name, given = reading.found.get("name"), reading.found.get("uuid")
    if name is not None and len(name) > MAX_NAME:
        raise Invalid(f"xml: <name> has {len(name)} letters; at most {MAX_NAME} are accepted")
    return Identity(
        type=reading.kind,
        name=name,
        uuid=None if given is None else _uuid(given.strip()),
        memory_kib=_kib(reading.found.get("memory", ""), reading.unit),
        vcpus=_whole(reading.found.get("vcpu", "")) or 1,
        insert_at=reading.insert_at,
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
    raw = document.encode()
    return (raw[: identity.insert_at] + missing.encode() + raw[identity.insert_at :]).decode()


def _check_declaration(version: str, encoding: str | None, _standalone: int) -> None:
    """Refuse what libvirt refuses. What encoding is named does not matter otherwise: the text has come as text."""
    if _VERSION.match(version) is None:
        raise Invalid(f"xml: version {version!r} is declared; declare 1.0")
    try:
        "<".encode(encoding or "utf-8")
    except (LookupError, ValueError) as error:
        raise Invalid(f"xml: encoding {encoding!r} is declared, and not known; declare UTF-8, or none") from error


def _no_doctype(*_: Any) -> None:
    raise Invalid("xml: a DOCTYPE is not accepted; remove it")


def _inner(scope: Mapping[str, str], attributes: Mapping[str, str]) -> Mapping[str, str]:
    """Return the namespaces by prefix inside an element; none is bound to ''."""
    declared = {name[6:]: uri for name, uri in attributes.items() if name.startswith("xmlns:") and uri}
    if "xmlns" in attributes:
        declared[""] = attributes["xmlns"]
    return {**scope, **declared} if declared else scope


def _resolved(tag: str, scope: Mapping[str, str]) -> tuple[str, str]:
    """Return namespace and local name of an element."""
    prefix, colon, local = tag.partition(":")
    if colon and prefix in scope and prefix:
        return scope[prefix], local
    return ("", tag) if colon and prefix else (scope[""], tag)


def _uuid(text: str) -> str:
    """Return a UUID in its usual form; libvirt takes it without dashes, too."""
    if _BARE_UUID.match(text):
        text = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    if not token.is_uuid(text):
        raise Invalid(f"xml: <uuid> is {text!r}; use the form 01234567-89ab-cdef-0123-456789abcdef")
    return text.lower()


def _escaped(text: str) -> str:
    # xml.sax.saxutils does the same, and loads urllib, http and ssl into every process for it.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _whole(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _kib(text: str, unit: str) -> int:
    return int(_whole(text) * _KIB.get(unit, 1))
