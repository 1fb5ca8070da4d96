"""An initramfs as the kernel reads it: a cpio archive in the "newc" form, without owners, times or devices."""

from __future__ import annotations

import stat
from collections.abc import Mapping

Tree = Mapping[str, bytes | None]
"""Paths without leading slash to contents; None is a directory. Parents come before what is in them."""


def archive(tree: Tree) -> bytes:
    """Return the archive of `tree`; every file may be executed."""
    entries = [_entry(number, path, content) for number, (path, content) in enumerate(tree.items(), start=1)]
    return b"".join([*entries, _record(0, "TRAILER!!!", 0, b"")])


def _entry(inode: int, path: str, content: bytes | None) -> bytes:
    if content is None:
        return _record(inode, path, stat.S_IFDIR | 0o755, b"")
    return _record(inode, path, stat.S_IFREG | 0o755, content)


def _record(inode: int, path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (major, minor), of the node (major, minor), length of the name, checksum
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)
