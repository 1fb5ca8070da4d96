"""Commands that run parts of the system: all of them together, a coordinator, a worker; and what they need in the broker."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli import broker, probe, render
from orchestrator.cli.settings import Command, Settings

if TYPE_CHECKING:
    from orchestrator.service import Options

_TEST = "test:///default"


@click.command(cls=Command, short_help="run broker, coordinator and workers on this machine")
@click.option("--nodes", type=click.IntRange(1, 64), default=1, show_default=True, help="Workers to run, called n1, n2, …")
@click.option(
    "--hypervisor", "hypervisors", metavar="URI", multiple=True, default=[_TEST], show_default=True,
    help="libvirt URI; repeatable. test:///default and qemu:///embed give each node one of its own.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=4222, show_default=True, help="Broker's port on 127.0.0.1; 0: a free one.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept (default: XDG state directory/virtbus).")
@click.option("--durable", is_flag=True, help="Sync everything to disk, so that nothing is lost with the power either.")
@click.pass_obj
def up(settings: Settings, nodes: int, hypervisors: tuple[str, ...], port: int, data_dir: Path | None, durable: bool) -> None:
    """Run the whole system on this machine until interrupted: broker, coordinator, workers, as processes under this one."""
    import anyio  # noqa: PLC0415  not on the way of --help

    from orchestrator.cli.layout import default_data_dir, is_private  # noqa: PLC0415  needs POSIX
    from orchestrator.cli.session import quiet  # noqa: PLC0415  not on the way of --help
    from orchestrator.cli.up import Plan, System  # noqa: PLC0415  not on the way of --help

    quiet(settings)
    if nodes > 1 and not all(map(is_private, hypervisors)):
        raise click.UsageError(f"all {nodes} nodes would have the same hypervisor; use test:///default or qemu:///embed, or --nodes 1")
    plan = Plan(
        data_dir=data_dir or default_data_dir(), nodes=nodes, hypervisors=hypervisors, port=port, prefix=settings.here().prefix,
        durable=durable,
    )
    _remind(settings)
    anyio.run(System(plan, render.say).run)


def _remind(settings: Settings) -> None:
    """Say where commands go, if a context is in use; a config file that is broken is no reason not to run."""
    try:
        name = settings.context
    except click.ClickException as error:
        render.complain(error.format_message())
    else:
        if name is not None:
            render.say(f"commands talk to the fleet of the context {name}, which is in use; to this one with --server or VIRTBUS_SERVER")


@click.command(cls=Command, short_help="run a coordinator")
@click.option("--name", metavar="NAME", help="What it is called among coordinators (default: this host's name).")
@click.pass_obj
def coordinator(settings: Settings, name: str | None) -> None:
    """Run a coordinator until interrupted: it answers requests, chooses nodes, and keeps the logs in order."""
    from orchestrator import service  # noqa: PLC0415  not on the way of --help

    service.run(_options(settings, name or service.host()))


@click.command(short_help="run a node's worker", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def worker(settings: Settings, options: tuple[str, ...]) -> None:
    """Run a node's worker until interrupted. Its options are its own: see `virtbus worker --help`."""
    given = {"VIRTBUS_SERVER": settings.server, "VIRTBUS_PREFIX": settings.prefix, "VIRTBUS_CREDS": settings.creds or ""}
    flags = [flag for flag, wanted in (("--wait", settings.wait), ("--verbose", settings.verbose)) if wanted]
    command = [sys.executable, "-P", "-m", "workers", *flags, *options]
    # the other side of the wire: this side never imports it, so this process becomes that one
    os.execve(command[0], command, {**os.environ, **given})  # noqa: S606  no shell is meant


@click.command(cls=Command, short_help="make or update what the system needs in the broker")
@click.option("--trim", is_flag=True, help="Also remove what every node has done from the log of orders, as a coordinator does.")
@click.pass_obj
def provision(settings: Settings, trim: bool) -> None:
    """Make the logs and buckets, or update them in place; what they hold stays."""
    from orchestrator import service  # noqa: PLC0415  not on the way of --help
    from orchestrator.cli.session import quiet  # noqa: PLC0415  not on the way of --help

    quiet(settings)
    removed = service.provision(_options(settings, "provision"), trim=trim)
    said = f"provisioned{f', {removed} done orders removed' if trim else ''}"
    render.show(settings.format, {"ok": True, "removed": removed}, lambda _: said)


def _options(settings: Settings, name: str) -> Options:
    from orchestrator.service import Options  # noqa: PLC0415  not on the way of --help

    creds = Path(settings.creds) if settings.creds else None
    return Options(
        server=settings.server, name=name, prefix=settings.prefix, creds=creds, wait=settings.wait, verbose=settings.verbose
    )


COMMANDS = (up, coordinator, worker, provision, *broker.COMMANDS, *probe.COMMANDS)
