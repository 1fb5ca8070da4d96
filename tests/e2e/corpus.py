"""Libvirt's own test corpus of domain XML, from Debian's source package: fetched once, kept beside the project, never part of it."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import httpx

from tests.e2e.fleet import PROJECT_ROOT

URL = "http://deb.debian.org/debian/pool/main/libv/libvirt/libvirt_9.0.0.orig.tar.xz"
SHA256 = "deca5cff1b7baac297bca9663907c61f71a47183371dc7ac019c107806d5435a"
FOLDER = "tests/qemuxml2argvdata"
CACHE = PROJECT_ROOT / ".corpus"


def fetched() -> Path:
    """Return the archive, fetched if it is not here yet. Raises `httpx.HTTPError`, `ValueError` if it is another than expected."""
    archive = CACHE / URL.rpartition("/")[2]
    if not archive.exists():
        answer = httpx.get(URL, timeout=60.0, follow_redirects=True).raise_for_status()
        if hashlib.sha256(answer.content).hexdigest() != SHA256:
            raise ValueError(f"{URL} is not what it was: its SHA-256 is another")
        CACHE.mkdir(exist_ok=True)
        partial = archive.with_suffix(".part")
        partial.write_bytes(answer.content)
        partial.rename(archive)
    return archive


def documents() -> dict[str, str]:
    """Return all domain XML by the name of its file. Raises as `fetched`."""
    found: dict[str, str] = {}
    with tarfile.open(fetched()) as archive:
        for member in archive.getmembers():
            folder, _, name = member.name.partition("/")[2].rpartition("/")
            file = archive.extractfile(member) if folder == FOLDER and name.endswith(".xml") else None
            if file is not None:
                found[name] = file.read().decode()
    return dict(sorted(found.items()))
