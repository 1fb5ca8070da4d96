"""The worker process: takes options, opens journal, hypervisors and bus, runs one `Worker`, and leaves in time."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import anyio

from orchestrator.bus.port import BusError
from orchestrator.log import get_logger, to_stderr
from orchestrator.protocol import token
from orchestrator.protocol.error import WireError
from workers.engine.lease import Taken
from workers.engine.publisher import Superseded
from workers.journal.port import JournalError
from workers.worker import Worker

QUIESCE_S = 0.4
"""Seconds that running commands get to end before the worker is cancelled."""

LEAVE_S = 1.1
"""Seconds after a signal at which the process is gone, whatever hangs."""

PATIENCE_S = 12.0
"""Seconds after which a worker that is not ready yet says what may be missing; it waits ten for its hypervisors."""

HYPERVISOR = "qemu:///system"
DONE, FAILED, CANNOT = 0, 1, 2

GC_THRESHOLDS = (20_000, 20, 20)

_log = get_logger()


class _Parser(argparse.ArgumentParser):
    """Complains in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the options and exit."""
        self.exit(CANNOT, f"{message}; see '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    environment = os.environ.get
    parser = _Parser(prog="virtbus worker", description="Run one node's worker: commands from the bus to its hypervisors, events back.")
    parser.add_argument("--node", type=_word, default=_host(), help="name of the node (default: %(default)s)")
    parser.add_argument("--hypervisor", metavar="URI", action="append", help=f"libvirt URI; repeatable (default: {HYPERVISOR})")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where its journal is (default: XDG state directory/virtbus/NODE)")
    parser.add_argument("--project", type=_word, default=token.DEFAULT_PROJECT, help="of domains that bear none (default: %(default)s)")
    parser.add_argument(
        "--only", metavar="project=NAME|label=NAME=VALUE", action="append", default=[], help="serve only such domains; repeatable"
    )
    parser.add_argument("--label", metavar="NAME=VALUE", action="append", type=_label, default=[], help="label of the node; repeatable")
    parser.add_argument("--server", metavar="URL", default=environment("VIRTBUS_SERVER", "nats://127.0.0.1:4222"), help="broker")
    parser.add_argument("--creds", metavar="FILE", type=Path, default=environment("VIRTBUS_CREDS") or None, help="NATS credentials file")
    parser.add_argument("--prefix", type=_word, default=environment("VIRTBUS_PREFIX", "virt"), help="first token of all subjects")
    parser.add_argument("--durable", action="store_true", help="sync the journal to disk, so that it survives a power loss")
    parser.add_argument("--rebuild", action="store_true", help="if the journal is damaged, put it aside and rebuild it from the logs")
    parser.add_argument("--wait", action="store_true", help="keep trying while the broker is away at the start")
    parser.add_argument("--verbose", action="store_true", help="log more")
    return parser


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _word(value: str) -> str:
    if not token.is_word(value):
        raise argparse.ArgumentTypeError(f"{value!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -")
    return value


def _label(value: str) -> tuple[str, str]:
    name, equals, text = value.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{value!r} is no label: use NAME=VALUE")
    return name, text


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a worker with the options of this process; never returns. Exits 0 when told to leave, 2 when it cannot serve."""
    options = _parser().parse_args(arguments)
    options.hypervisor = options.hypervisor or [HYPERVISOR]
    to_stderr(verbose=options.verbose)
    uvloop = importlib.util.find_spec("uvloop") is not None
    code = FAILED
    try:
        code = anyio.run(_main, options, backend_options={"use_uvloop": uvloop})
    except Exception:  # noqa: BLE001  the root of everything here; the process must end even if threads hang
        _log.exception("worker.failed")
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process now: a libvirt call that hangs in a thread would keep the interpreter from ending by itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _main(options: argparse.Namespace) -> int:
    """Run the worker; return the exit code, and say in one sentence why where it cannot."""
    code = DONE
    try:
        await _serve(options)
    except* (WireError, BusError, JournalError, Taken, Superseded, OSError) as failures:
        sys.stderr.write(f"{_first(failures)}\n")
        code = CANNOT
    return code


def _first(failures: BaseExceptionGroup[BaseException]) -> str:
    """Return the message of the first failure in a group, however deep."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return " ".join(str(failure).split())


async def _serve(options: argparse.Namespace) -> None:
    """Serve until a signal comes. Raises, in groups, what makes that impossible."""
    worker = Worker(
        options.server,
        node=options.node,
        hypervisors=options.hypervisor,
        data_dir=_data_dir(options),
        project=options.project,
        only=options.only,
        labels=dict(options.label),
        prefix=options.prefix,
        creds=options.creds,
        wait=options.wait,
        durable=options.durable,
        rebuild=options.rebuild,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_told, worker, tasks.cancel_scope)
        async with worker:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(_explain_waiting)
                await tasks.start(worker.run)
                waiting.cancel_scope.cancel()
            _settle_memory()
            sys.stdout.write(f"worker {options.node} ready: {', '.join(map(_described, options.hypervisor))}\n")
            sys.stdout.flush()
            await anyio.sleep_forever()


def _settle_memory() -> None:
    """Keep the collector off what lives as long as the process, and let it come less often: each pass holds up every command."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _explain_waiting() -> None:
    await anyio.sleep(PATIENCE_S)
    _log.warning("worker.not_ready", hint="do the logs exist? a coordinator makes them, and so does 'virtbus provision'")


async def _until_told(worker: Worker, scope: anyio.CancelScope) -> None:
    """Wait for a signal; then give what runs a moment to end, and cancel the rest. A second signal ends the process at once."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(aiter(signals))
        watchdog = threading.Timer(LEAVE_S, _leave, (DONE,))
        watchdog.daemon = True
        watchdog.start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _log.info("worker.leaving")
    with anyio.move_on_after(QUIESCE_S):
        await worker.quiesce()
    scope.cancel()


def _described(uri: str) -> str:
    """Return a URI, with what people must know of libvirt's test driver: it lives inside this process."""
    return f"{uri} (its domains end with this process)" if uri.startswith("test:///") else uri


def _data_dir(options: argparse.Namespace) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path: Path = options.data_dir or state / "virtbus" / options.node
    path.mkdir(parents=True, exist_ok=True)
    return path
