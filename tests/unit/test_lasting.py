"""A trouble that lasts is said at its begin, each 15 minutes, and at its end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tests.harness.ticking import HeldClock

from patrolserver_exporter.lasting import LastingTrouble

if TYPE_CHECKING:
    import pytest

log = logging.getLogger("test.lasting")


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What is in the log at its usual level."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.levelno >= logging.INFO]


def fields(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    """What the last line says beside its text."""
    found: dict[str, object] = vars(caplog.records[-1])["fields"]
    return found


def test_a_trouble_is_repeated_each_quarter_of_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """At its level, with its begin and the number of tries; what is between is for debugging."""
    caplog.set_level(logging.DEBUG)
    clock = HeldClock()
    trouble = LastingTrouble(log, clock, logging.ERROR)
    for _ in range(92):
        trouble.lasts("refused", account="main")
        clock.advance(10.0)
    assert said(caplog) == [("ERROR", "refused"), ("ERROR", "Still so: refused")]
    trouble.lasts("refused", account="main")
    assert fields(caplog) == {"account": "main", "since": "2027-01-15T08:00:00+00:00", "tries": 93}


def test_the_end_of_a_trouble_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """And only if it was there; the next one starts again."""
    caplog.set_level(logging.INFO)
    trouble = LastingTrouble(log, HeldClock())
    trouble.is_over("fine")
    trouble.lasts("bad")
    trouble.is_over("fine")
    trouble.is_over("fine")
    trouble.lasts("bad")
    assert said(caplog) == [("WARNING", "bad"), ("INFO", "fine"), ("WARNING", "bad")]
