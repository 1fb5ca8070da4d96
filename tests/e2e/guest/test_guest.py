"""The tiny guest really boots, says so on its serial console, and obeys the power button."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.guest import MEMORY_MIB, OBEYS, READY, Guest, GuestError, build
from demo.stage import CACHE

EMULATOR = f"qemu-system-{platform.machine()}"
LIMIT_S = 60.0

pytestmark = [
    pytest.mark.hypervisor,
    pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"{EMULATOR} is not installed"),
]


@pytest.fixture(scope="module")
def guest() -> Guest:
    """Return the guest, made from packages if it is not in the cache yet."""
    try:
        return build(CACHE)
    except GuestError as error:
        pytest.skip(f"no guest can be made here: {error}")


class Machine:
    """A QEMU that emulates everything, with nothing but a serial console and a control socket."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.log = folder / "serial.log"
        self._control = folder / "control"
        arguments = ["-accel", "tcg", "-machine", guest.machine.type, "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none"]
        arguments += ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
        arguments += ["-append", f"console={guest.machine.console} {guest.machine.cmdline}"]
        arguments += ["-serial", f"file:{self.log}", "-qmp", f"unix:{self._control},server,nowait"]
        self.process = subprocess.Popen([EMULATOR, *arguments])

    def await_line(self, text: str) -> None:
        """Wait until `text` stands on the console; a file tells nobody that it grew."""
        end = time.monotonic() + LIMIT_S
        while text not in self.console:
            assert time.monotonic() < end, f"no {text!r} within {LIMIT_S} s; the console ends with {self.console[-500:]!r}"
            assert self.process.poll() is None, "QEMU ended"
            time.sleep(0.05)

    @property
    def console(self) -> str:
        """What the guest printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def press_power_button(self) -> None:
        """Ask the guest by ACPI to shut down."""
        with socket.socket(socket.AF_UNIX) as control, control.makefile("rw") as line:
            control.connect(str(self._control))
            line.write('{"execute": "qmp_capabilities"} {"execute": "system_powerdown"}\n')
            line.flush()
            greeting, ready, pressed = (line.readline() for _ in range(3))
            assert "POWERDOWN" in pressed, (greeting, ready, pressed)


@pytest.fixture
def machine(guest: Guest, tmp_path: Path) -> Iterator[Machine]:
    """Start a machine with the guest, and end it whatever happened."""
    machine = Machine(guest, tmp_path)
    yield machine
    machine.process.kill()
    machine.process.wait()


def test_the_guest_boots_and_obeys_the_power_button(machine: Machine) -> None:
    """Its kernel is seen booting, it says that it is up, and the power button ends the machine."""
    machine.await_line(READY)
    assert "Linux version" in machine.console
    machine.press_power_button()
    assert machine.process.wait(LIMIT_S) == 0
    assert OBEYS in machine.console


def test_a_guest_once_made_needs_no_network(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache answers where no apt is."""
    monkeypatch.setenv("PATH", "")
    assert guest == build(CACHE)
