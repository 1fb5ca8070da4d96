"""The coordinator process: opens the bus, makes what the system needs in the broker, runs one `Coordinator`, leaves when told."""

from __future__ import annotations

import gc
import importlib.util
import signal
import socket
import sys
import time
from contextlib import aclosing
from importlib.metadata import entry_points, version
from pathlib import Path

import anyio
import msgspec

from orchestrator.bus.logs import buckets, logs
from orchestrator.bus.nats import ChannelBus
from orchestrator.bus.port import Bus, BusError
from orchestrator.bus.reach import arrive, bus_at
from orchestrator.engine.coordinator import Coordinator
from orchestrator.log import get_logger, to_stderr
from orchestrator.protocol import codec, extension
from orchestrator.protocol.error import WireError
from orchestrator.protocol.node import Lease
from orchestrator.protocol.subject import Subjects
from orchestrator.store.kv import KeyValue

GC_THRESHOLDS = (20_000, 20, 20)

_log = get_logger()


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the broker, and as whom. name: of this coordinator. wait: keep trying while the broker is away at the start."""

    server: str
    name: str
    prefix: str = "virt"
    creds: Path | None = None
    wait: bool = False
    verbose: bool = False

    @property
    def subjects(self) -> Subjects:
        """The installation's subjects."""
        return Subjects(self.prefix)


def host() -> str:
    """Return this host's name as a token."""
    return socket.gethostname().replace(".", "-")


def run(options: Options) -> None:
    """Run a coordinator until a signal comes. Raises the `WireError` or `BusError` that makes it impossible."""
    to_stderr(verbose=options.verbose)
    extension.enlist(entry_points(group=extension.GROUP))
    uvloop = importlib.util.find_spec("uvloop") is not None
    anyio.run(_serve, options, backend_options={"use_uvloop": uvloop})


def provision(options: Options, *, trim: bool) -> int:
    """Make or update logs and buckets, and with `trim` remove done orders; return how many. Raises `BusError`."""
    return anyio.run(_provision, options, trim)


async def _serve(options: Options) -> None:
    failure: WireError | BusError | None = None
    try:
        # the bus around the tasks: what they still say when they are cancelled must reach the broker
        async with _bus(options) as bus, anyio.create_task_group() as tasks:
            tasks.start_soon(_until_told, tasks.cancel_scope)
            await arrive(bus, wait=options.wait)
            await make(bus, options.subjects)
            coordinator = Coordinator(bus, subjects=options.subjects, name=options.name, version=version("virtbus"))
            await tasks.start(coordinator.run)
            _settle_memory()
            sys.stdout.write(f"coordinator {options.name} ready: answers on {options.subjects.apis}\n")
            sys.stdout.flush()
            await anyio.sleep_forever()
    except* (WireError, BusError) as failures:
        failure = _first(failures)
    if failure is not None:
        raise failure


def _settle_memory() -> None:
    """Keep the collector off what lives as long as the process, and let it come less often: each pass holds up every command."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _until_told(scope: anyio.CancelScope) -> None:
    """Cancel `scope` at the first signal; a second one ends the process at once."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(aiter(signals))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _log.info("coordinator.leaving")
    scope.cancel()


async def _provision(options: Options, trim: bool) -> int:
    async with _bus(options) as bus:
        await arrive(bus, wait=options.wait)
        await make(bus, options.subjects)
        return await _trim(bus, options.subjects) if trim else 0


async def make(bus: Bus, subjects: Subjects) -> None:
    """Make the logs and buckets of an installation, or update them in place. Raises `BusError`."""
    await bus.provision([*logs(subjects, created=time.time()), *buckets(subjects)])


async def _trim(bus: Bus, subjects: Subjects) -> int:
    """Remove what each node with a lease has done from the log of orders; return how many orders."""
    removed = 0
    async with aclosing(KeyValue(bus, subjects.bucket("leases")).watch()) as portions:
        async for portion in portions:
            if portion is None:
                break
            for entry in portion:
                done = codec.decode(entry.value, Lease).done if entry.value is not None else 0
                removed += await bus.purge(subjects.log_run, subjects.runs(entry.key), done) if done else 0
    return removed


def _bus(options: Options) -> ChannelBus:
    return bus_at(options.server, name=f"virtbus-{options.name}", creds=options.creds)


def _first(failures: BaseExceptionGroup[WireError | BusError]) -> WireError | BusError:
    """Return the first failure in a group, however deep."""
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
