"""Where `virtbus up` keeps what: one directory for everything, one below it for each node."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.protocol.error import Conflict

ROOT_LIMIT = 36
"""Characters that the root of an embedded QEMU driver may have: libvirt appends up to 70 for its sockets, and 107 are possible."""

EMBED = "qemu:///embed"
_TEST = "test:///default"
_RUN = Path("/run")
_EMPTY_NODE = "<node>\n</node>\n"


def default_data_dir() -> Path:
    """Return the directory for state that the XDG base directory specification gives to this program."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "virtbus"


class Layout:
    """The files of one installation under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()

    @property
    def broker(self) -> Path:
        """Directory of the broker's store and configuration."""
        return self.root / "broker"

    def node(self, name: str) -> Path:
        """Directory of a node: journal, hypervisor, pid, log."""
        return self.root / name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the directory and hold it for this process alone. Raises `Conflict` if another `virtbus up` has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "up.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                holder = f"another 'virtbus up' (pid {lock.read().strip()})"
                raise Conflict(f"{self.root} is in use by {holder}; stop that, or choose another --data-dir") from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def hypervisor(self, uri: str, node: str) -> str:
        """Return the URI under which a node has a hypervisor of its own where `uri` is the default test driver or embedded QEMU."""
        home = self.node(node)
        home.mkdir(exist_ok=True)
        if uri == _TEST:
            description = home / "test.xml"
            description.write_text(_EMPTY_NODE)
            return f"test://{description}"
        if uri == EMBED:
            return f"{EMBED}?root={self._embed_root(home, node)}"
        return uri

    def _embed_root(self, home: Path, node: str) -> Path:
        """Return the directory of a node's embedded QEMU driver; where ours will not do, another one, made for it and remembered."""
        root, remembered = home / "qemu", home / "qemu-root"
        if len(str(root)) > ROOT_LIMIT or not _open_to_all(home):
            if not remembered.exists():
                elsewhere = tempfile.mkdtemp(prefix=f"vb-{node}-", dir=_RUN if os.access(_RUN, os.W_OK) else None)
                remembered.write_text(elsewhere)
            root = Path(remembered.read_text())
        root.mkdir(exist_ok=True)
        root.chmod(0o711)
        settings = root / "etc" / "qemu.conf"
        if not settings.exists():
            settings.parent.mkdir(exist_ok=True)
            settings.write_text(_qemu_conf(root))
        return root


def _qemu_conf(root: Path) -> str:
    """Return the settings of an embedded driver: no virtlogd is beside it; where owners of files cannot be remembered, they are not."""
    try:
        os.setxattr(root, "trusted.virtbus", b"1")
        os.removexattr(root, "trusted.virtbus")
    except PermissionError:
        return 'stdio_handler = "file"\nremember_owner = 0\n'
    except OSError:
        pass  # no such attributes on this file system: libvirt does without them by itself
    return 'stdio_handler = "file"\n'


def _open_to_all(directory: Path) -> bool:
    """Tell whether any user can pass through `directory`: QEMU runs as one of its own."""
    return all(path.stat().st_mode & 0o001 for path in (directory, *directory.parents))


def is_private(uri: str) -> bool:
    """Tell whether each node has a hypervisor of its own under `uri`; else all would take the same domains for theirs."""
    return uri == EMBED or uri.startswith("test:///")
