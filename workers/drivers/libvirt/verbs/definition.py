"""Bringing domains into being and removing them."""

from __future__ import annotations

from typing import Any, cast

import libvirt
import msgspec

from orchestrator.protocol import domainxml
from orchestrator.protocol.verb import Args, XmlArgs
from workers.drivers.libvirt import errors, xml
from workers.drivers.libvirt.sighting import find
from workers.drivers.libvirt.tagging import tagged
from workers.drivers.libvirt.verbs.signature import Run, on_domain
from workers.drivers.port import Exists, Tag

_UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA,
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA,
)
"""All that belongs to a definition goes with it; drivers that do not know a flag are asked with fewer, or without any."""


def _define_xml(connection: Any, uuid: str, args: Args, tag: Tag) -> None:
    """Define or redefine. What the tag leaves open, a domain keeps; a running one bears the new tag at once."""
    before = find(connection, uuid)
    if before is not None:
        tag = _kept(tag, xml.tag_of(xml.parse(before.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))))
    domain = _define(connection, uuid, cast(XmlArgs, args).xml, tag)
    if domain.isActive() and xml.tag_of(xml.parse(domain.XMLDesc(0))) != tag:
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml.tag_metadata(tag), "virtbus", xml.TAG, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _create_xml(connection: Any, uuid: str, args: Args, tag: Tag) -> None:
    """Define and start; what cannot start is not left defined."""
    if find(connection, uuid) is not None:
        raise Exists(f"domain {uuid} exists already; use define-xml to change it")
    domain = _define(connection, uuid, cast(XmlArgs, args).xml, tag)
    try:
        domain.create()
    except libvirt.libvirtError as error:
        try:
            _undefine(domain)
        except libvirt.libvirtError as again:
            error.add_note(f"its definition could not be removed: {again}")
        raise


def _undefine(domain: Any) -> None:
    for flags in _UNDEFINE_FLAGS:
        try:
            domain.undefineFlags(flags)
        except libvirt.libvirtError as error:
            if not errors.is_unsupported(error):
                raise
        else:
            return
    domain.undefine()


def _define(connection: Any, uuid: str, document: str, tag: Tag) -> Any:
    """Define with validation: without it libvirt drops silently what it does not know."""
    try:
        return connection.defineXMLFlags(tagged(document, tag), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    except libvirt.libvirtError as error:
        # Libvirt has no code of its own for a name or UUID that is taken, and its words depend on the daemon's language.
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED and _is_taken(connection, uuid, document):
            raise Exists(str(error), code=error.get_error_code(), domain=error.get_error_domain()) from error
        raise


def _is_taken(connection: Any, uuid: str, document: str) -> bool:
    """Tell whether another domain has the name, or this UUID another name."""
    name = domainxml.identify(document).name
    return any((other.name() == name) != (other.UUIDString() == uuid) for other in connection.listAllDomains())


def _kept(tag: Tag, before: Tag | None) -> Tag:
    """Return `tag` with labels and generation of `before` where it gives none."""
    if before is None:
        return tag
    return msgspec.structs.replace(tag, labels=tag.labels or before.labels, generation=tag.generation or before.generation)


DEFINITION: dict[str, Run] = {"define-xml": _define_xml, "create-xml": _create_xml, "undefine": on_domain(_undefine)}
