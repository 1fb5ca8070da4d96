"""Domain XML: what virtbus reads of it, and its own metadata in it.

Two namespaces are ours. `TAG` holds the owner's project, labels and generation, in the definition. `LIVE` holds the
incarnation and is written to the running instance only, so that it ends with it.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from lxml import etree

from workers.drivers.port import Malformed, Tag

TAG = "https://virtbus.dev/xmlns/domain/1"
LIVE = "https://virtbus.dev/xmlns/live/1"


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What a sighting takes from the XML."""

    type: str
    vcpus: int
    memory_kib: int
    tag: Tag | None
    incarnation: str | None


@functools.lru_cache(maxsize=1024)
def described(document: str) -> Described:
    """Read what a sighting needs. Most looks find a domain's XML as it was: what it says is remembered. Raises as `parse`."""
    root = parse(document)
    vcpu = root.find("vcpu")
    present = None if vcpu is None else vcpu.get("current", vcpu.text)
    return Described(
        type=root.get("type", ""),
        vcpus=_whole(present),
        memory_kib=_whole(root.findtext("memory")),
        tag=tag_of(root),
        incarnation=incarnation_of(root),
    )


def parse(document: str) -> etree._Element:
    """Return the root of `document`; raise `Malformed` where it is no XML or has a DOCTYPE. Loads nothing, expands nothing."""
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(document.encode(), parser)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise Malformed(f"xml: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise Malformed("xml: a DOCTYPE is not accepted; remove it")
    return root


def tag_of(root: etree._Element) -> Tag | None:
    """Return the tag in a domain's XML, None if it bears none."""
    element = root.find(f"metadata/{{{TAG}}}domain")
    project = None if element is None else element.get("project")
    if element is None or project is None:
        return None
    labels = {label.get("name", ""): label.get("value", "") for label in element.iterfind(f"{{{TAG}}}label")}
    return Tag(project=project, labels=labels, generation=_whole(element.get("generation")))


def incarnation_of(root: etree._Element) -> str | None:
    """Return the incarnation in a running domain's XML, None if it bears none."""
    element = root.find(f"metadata/{{{LIVE}}}instance")
    return None if element is None else element.get("incarnation")


def written(tag: Tag) -> str:
    """Return `tag` as it stands in a domain's metadata."""
    return etree.tostring(_element(tag, {"virtbus": TAG}), encoding="unicode")


def tag_metadata(tag: Tag) -> str:
    """Return `tag` as libvirt's setMetadata takes it: the prefix is libvirt's to declare."""
    return etree.tostring(_element(tag, {None: TAG}), encoding="unicode")


def live_metadata(incarnation: str) -> str:
    """Return `incarnation` as libvirt's setMetadata takes it."""
    return etree.tostring(etree.Element("instance", incarnation=incarnation), encoding="unicode")


def _element(tag: Tag, prefixes: dict[Any, str]) -> etree._Element:
    """Build the tag; the prefix None is the default namespace, which the stubs do not know."""
    element = etree.Element(f"{{{TAG}}}domain", nsmap=prefixes, project=tag.project, generation=str(tag.generation))
    for name, value in sorted(tag.labels.items()):
        etree.SubElement(element, f"{{{TAG}}}label", name=name, value=value)
    return element


def _whole(text: str | None) -> int:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() else 0
