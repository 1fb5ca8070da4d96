"""Laws of our log lines: a program that embeds us has the last word on them."""

from __future__ import annotations

import logging

import pytest
import structlog

from orchestrator.log import get_logger, to_stderr


def test_nothing_is_printed_where_nobody_asked_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to the program."""
    get_logger().info("bus.connected", session=1)
    assert ("", "") == capfd.readouterr()


def test_lines_go_to_the_standard_librarys_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Under one name, with their level, and with what was bound."""
    with caplog.at_level(logging.INFO, "virtbus"):
        get_logger().bind(journal="j").warning("bus.disconnected", session=1)
    (record,) = caplog.records
    assert ("virtbus", logging.WARNING) == (record.name, record.levelno)
    assert "event='bus.disconnected' journal='j' session=1" == record.getMessage()


def test_who_has_set_up_structlog_gets_them_there() -> None:
    """As it has set it up, also after the logger was made."""
    log = get_logger()
    with structlog.testing.capture_logs() as lines:
        log.info("bus.connected", session=1)
    assert [{"event": "bus.connected", "session": 1, "log_level": "info"}] == lines


def test_a_process_of_ours_logs_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """JSON lines where that is no terminal."""
    to_stderr(verbose=False)
    get_logger().debug("unheard")
    get_logger().info("heard")
    out, err = capfd.readouterr()
    assert ("", 1, True) == (out, err.count("\n"), '"event": "heard"' in err)
