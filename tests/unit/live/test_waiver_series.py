from __future__ import annotations

import datetime as dt

from patrolserver_exporter.issues.model import Kind, Severity, Waiver
from patrolserver_exporter.live.encoding import negotiate, plain
from patrolserver_exporter.live.waiver_series import WaiverCollector

NAME = "patrolserver_waiver_expiry_timestamp_seconds"


def shown(*waivers: Waiver) -> list[str]:
    text = b"".join(plain(WaiverCollector(lambda: waivers).pieces(negotiate(None), None))).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_a_waiver_ends_with_its_last_day_in_utc() -> None:
    """What was not written is an empty label."""
    waiver = Waiver(server="*.Example.org", software="php", until=dt.date(2027, 1, 31), reason="r")
    end = dt.datetime(2027, 2, 1, tzinfo=dt.UTC).timestamp()
    labels = 'exploit="",kind="",max_severity="",server="*.Example.org",software="php"'
    (line,) = shown(waiver)
    assert line.split(" ")[0] == f"{NAME}{{{labels}}}"
    assert float(line.split(" ")[1]) == end


def test_all_that_is_written_is_a_label() -> None:
    """As it is written."""
    (line,) = shown(
        Waiver(
            server="web-*",
            software="openssl",
            exploit="CVE-2026-0001",
            kind=Kind.EXPLOITABLE,
            max_severity=Severity.HIGH,
            until=dt.date(2027, 1, 31),
            reason="r",
        )
    )
    assert 'exploit="CVE-2026-0001",kind="exploitable",max_severity="high",server="web-*",software="openssl"' in line


def test_of_waivers_that_are_written_alike_the_latest_end_is_shown() -> None:
    """Two series with the same labels would fail the scrape."""
    first, last = (
        Waiver(server="*", software="php", until=dt.date(2027, month, 1), reason=f"until {month}") for month in (3, 2)
    )
    assert len(shown(first, last)) == 1
    assert shown(first, last) == shown(first)


def test_the_last_day_that_calendars_know_has_an_end() -> None:
    """Some people mean never."""
    assert shown(Waiver(server="*", software="*", until=dt.date.max, reason="r"))
