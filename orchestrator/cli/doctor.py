"""`virtbus doctor`: looks everything over, and says what to do about what is not well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli import contexts, render
from orchestrator.cli.session import quiet
from orchestrator.cli.settings import Command, Settings, reader_option

if TYPE_CHECKING:
    from orchestrator.cli.checkup import Finding

HYPERVISORS_S = 60.0
"""Seconds that looking at this host's hypervisors may take: libvirt may block for ever."""

_KVM = Path("/dev/kvm")
_SHOW = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@click.command(cls=Command, short_help="look everything over, and say what to do")
@click.option("--hypervisor", "uris", metavar="URI", multiple=True, help="Also a hypervisor that this host can reach; repeatable.")
@click.option("--kvm/--no-kvm", default=None, help="Also boot a kernel under this host's KVM (default: where --hypervisor is its QEMU).")
@click.option("--kernel", type=click.Path(exists=True, dir_okay=False, resolve_path=True), metavar="FILE",
              help="The kernel for --kvm (default: this host's own).")
@click.pass_obj
def doctor(settings: Settings, uris: tuple[str, ...], kvm: bool | None, kernel: str | None) -> None:
    """Look everything over: broker, logs, rights, clocks, coordinators, workers and their hypervisors. Nothing is changed.

    Each line is ok, warn or FAIL, with what to do about it. Exits 1 if anything fails.
    """
    findings = []
    if kvm is None:
        kvm = _KVM.exists() and any(uri.startswith("qemu:///") for uri in uris)
    for finding in _findings(settings, uris, kvm=kvm, kernel=kernel):
        findings.append(finding)
        if settings.format == "table":
            render.say(_line(finding))
    if settings.format != "table":
        render.show(settings.format, findings, str)
    if any(finding.verdict == "fail" for finding in findings):
        click.get_current_context().exit(1)


doctor.params.append(reader_option())


def _findings(settings: Settings, uris: tuple[str, ...], *, kvm: bool, kernel: str | None) -> Iterator[Finding]:
    from orchestrator.cli.checkup import fail, ok  # noqa: PLC0415  not on the way of --help

    try:
        context, server = settings.context, contexts.shown(settings.server)
        yield ok("settings", f"{f'context {context}' if context else 'no context'}, project {settings.owner}, prefix {settings.prefix}")
        if settings.creds and not Path(settings.creds).is_file():
            yield fail("settings", f"there is no credentials file {settings.creds}", "give the right one with --creds, or in the context")
    except click.ClickException as error:
        yield fail("settings", error.format_message(), "mend it, or set VIRTBUS_CONFIG to another file")
    else:
        yield from _through_broker(settings, server)
    if uris or kvm:
        yield from _of_this_host(uris, kvm=kvm, kernel=kernel)


def _through_broker(settings: Settings, server: str) -> list[Finding]:
    import anyio  # noqa: PLC0415  not on the way of --help

    quiet(settings)
    return anyio.run(_examined, settings, server)


async def _examined(settings: Settings, server: str) -> list[Finding]:
    from orchestrator.bus.port import BusError  # noqa: PLC0415  not on the way of --help
    from orchestrator.bus.reach import arrive, bus_at  # noqa: PLC0415  as above
    from orchestrator.cli.checkup import Checkup, fail  # noqa: PLC0415  as above
    from orchestrator.protocol.subject import Subjects  # noqa: PLC0415  as above

    findings: list[Finding] = []
    try:
        async with bus_at(settings.server, name="virtbus-doctor", creds=Path(settings.creds) if settings.creds else None) as bus:
            await arrive(bus, wait=settings.wait)
            checkup = Checkup(bus, Subjects(settings.prefix), settings.owner, settings.reader)
            findings.extend([finding async for finding in checkup.findings(server)])
    except BusError as error:
        remedy = "start one ('virtbus up' does for this machine), or say where it is: --server, VIRTBUS_SERVER, 'virtbus context set'"
        findings.append(fail("broker", str(error), remedy))
    return findings


def _of_this_host(uris: tuple[str, ...], *, kvm: bool, kernel: str | None) -> Iterator[Finding]:
    """Ask the other side of the wire, which knows hypervisors, as a process of its own: this side never imports it."""
    from orchestrator.cli.checkup import Finding, fail  # noqa: PLC0415  not on the way of --help
    from orchestrator.protocol import codec  # noqa: PLC0415  as above

    command = [sys.executable, "-P", "-m", "workers.checkup", *(part for uri in uris for part in ("--hypervisor", uri))]
    command += ["--kvm"] if kvm else []
    command += ["--kernel", kernel] if kernel else []
    try:
        ended = subprocess.run(command, capture_output=True, timeout=HYPERVISORS_S, check=False)
        output, complaint = ended.stdout, ended.stderr.decode(errors="replace").strip()
    except subprocess.TimeoutExpired as error:
        output, complaint = error.stdout or b"", f"it does not answer within {HYPERVISORS_S:g} s"
    found = [codec.decode(line, Finding) for line in output.splitlines()]
    yield from found
    if len(found) < len(uris) + kvm:
        subject = f"hypervisor {uris[len(found)]}" if len(found) < len(uris) else "KVM"
        yield fail(subject, render.printable(complaint.rpartition("\n")[2] or "nothing is known"), "is its daemon well? restart it")


def _line(finding: Finding) -> str:
    remedy = f"\n      {' ' * 2}→ {render.printable(finding.remedy)}" if finding.remedy else ""
    mark = render.painted(finding.verdict, _SHOW[finding.verdict].ljust(4))
    return f"{mark}  {render.printable(f'{finding.subject}: {finding.said}')}{remedy}"
