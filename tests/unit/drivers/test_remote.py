"""How hypervisors elsewhere are reached, and what is said where they are not."""

from __future__ import annotations

import socket

import libvirt
import pytest

from workers.drivers.libvirt import LibvirtDriver, remote
from workers.drivers.port import Lost
from workers.testing import Recorder


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu:///system", ""),
        ("qemu:///embed?root=/x", ""),
        ("qemu://host/system", "tls"),
        ("qemu+tcp://host:16509/system", "tcp"),
        ("qemu+ssh://root@host/system", "ssh"),
        ("lxc+unix:///?socket=/run/x", "unix"),
        ("esx://host/?no_verify=1", ""),
    ],
)
def test_a_uri_says_how_its_hypervisor_is_reached(uri: str, expected: str) -> None:
    """As libvirt reads it."""
    assert expected == remote.transport(uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu+ssh://host/system", "qemu+ssh://host/system?no_tty=1"),
        ("qemu+ssh:///system?keyfile=/k", "qemu+ssh:///system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://host/system?no_tty=0", "qemu+ssh://host/system?no_tty=0"),
        ("qemu+tls://host/system?pkipath=/p", "qemu+tls://host/system?pkipath=/p"),
        ("test:///default", "test:///default"),
    ],
)
def test_ssh_never_asks_and_every_other_uri_passes_as_it_is(uri: str, expected: str) -> None:
    """Who says otherwise means it."""
    assert expected == remote.opened_as(uri)


@pytest.mark.parametrize("uri", ["qemu:///system", "qemu+tcp://h/system", "qemu+ssh://h/system", "qemu://h/system", "lxc+unix:///"])
def test_where_libvirt_cannot_connect_there_is_something_to_do(uri: str) -> None:
    """For each way to reach it, and other words where credentials are wanted."""
    advice, wanted = remote.remedy(uri, libvirt.VIR_ERR_SYSTEM_ERROR), remote.remedy(uri, libvirt.VIR_ERR_AUTH_FAILED)
    assert advice
    assert ("authfile" in wanted, advice != wanted) == (True, True)


def test_libvirts_own_words_do_where_nothing_better_is_known() -> None:
    """No advice is better than a wrong one."""
    assert "" == remote.remedy("qemu+tcp://h/system", libvirt.VIR_ERR_XML_ERROR)
    assert "" == remote.remedy("esx://h/", libvirt.VIR_ERR_SYSTEM_ERROR)


def test_a_refused_connection_is_lost_with_the_remedy() -> None:
    """Nobody listens on a port that was just given back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Lost, match=r"cannot connect to qemu\+tcp://.*listen_tcp") as caught:
        LibvirtDriver(f"qemu+tcp://127.0.0.1:{port}/system").open(Recorder())
    assert (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC) == (caught.value.code, caught.value.domain)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu+tls://127.0.0.1:1/system?pkipath=/nowhere", "clientcert.pem"),
        ("qemu+nonsense://127.0.0.1/system", "transport"),
    ],
)
def test_what_libvirt_refuses_is_lost_in_words_that_help(uri: str, words: str) -> None:
    """Certificates that are missing, a transport that does not exist."""
    with pytest.raises(Lost, match=words):
        LibvirtDriver(uri).open(Recorder())
