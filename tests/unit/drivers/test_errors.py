"""Libvirt's errors become the port's."""

from __future__ import annotations

import libvirt
import pytest

from workers.drivers.libvirt import errors
from workers.drivers.port import DriverError, Exists, Impossible, Lost, Malformed, Missing, Rejected


def error(code: int, domain: int) -> libvirt.libvirtError:
    """Return an error as libvirt raises it."""
    made = libvirt.libvirtError("words")
    made.err = (code, domain, "words", 2, None, None, None, -1, -1)
    return made


@pytest.mark.parametrize(
    ("code", "domain", "kind"),
    [
        (42, 10, Missing),  # no domain with matching uuid
        (27, 5, Malformed),  # expecting root element of 'domain'
        (35, 20, Malformed),  # start tag expected
        (92, 5, Malformed),  # failed to validate against schema
        (3, 20, Impossible),  # not supported by the connection driver
        (84, 10, Impossible),  # operation not supported
        (6, 20, Lost),  # invalid connection pointer
        (1, 7, Lost),  # client socket is closed; keepalive timeout
        (55, 20, Rejected),  # domain is not running
        (1, 12, Rejected),  # the test driver's "not running"
        (38, 7, Rejected),  # no virtlogd, said by a hypervisor that is there
        (68, 10, Rejected),  # cannot acquire state change lock
        (67, 10, Rejected),  # unsupported configuration
        (28, 20, Exists),
    ],
)
def test_each_number_has_its_kind_while_the_connection_stands(code: int, domain: int, kind: type[DriverError]) -> None:
    """The numbers are those that libvirt 9.0 was seen to give."""
    translated = errors.translate(error(code, domain), alive=True)
    assert (kind, code, domain) == (type(translated), translated.code, translated.domain)


@pytest.mark.parametrize(("code", "domain"), [(38, 7), (1, 0), (39, 7), (55, 20), (27, 5), (3, 20)])
def test_on_a_dead_connection_every_error_is_a_loss(code: int, domain: int) -> None:
    """What was asked may have happened."""
    assert Lost is type(errors.translate(error(code, domain), alive=False))


def test_no_domain_is_an_answer_even_from_a_connection_that_died_after_it() -> None:
    """Nobody but the hypervisor says 42."""
    assert Missing is type(errors.translate(error(42, 10), alive=False))


def test_an_error_without_numbers_is_rejected() -> None:
    """Libvirt sometimes gives words only."""
    bare = libvirt.libvirtError("words")
    bare.err = None
    translated = errors.translate(bare, alive=True)
    assert (Rejected, 0, 0) == (type(translated), translated.code, translated.domain)
