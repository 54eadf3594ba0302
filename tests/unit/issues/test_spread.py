"""Over the fleet: on how many servers a software or an exploit is, and what nobody knows of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.issues.model import SEVERITIES, IssueExploit, Kind, Severity
from patrolserver_exporter.issues.spread import (
    ExploitsOverFleet,
    SeenIssue,
    SoftwareOverFleet,
    exploit_key,
)
from patrolserver_exporter.patrolserver.models import Software

UNTIL = dt.date(2027, 1, 31)


def seen(server_id: int = 1, **changes: Any) -> SeenIssue:
    settings: dict[str, Any] = {
        "account": "main",
        "server_id": server_id,
        "canonical_name": "openssl",
        "software": "OpenSSL",
        "version": "1.0",
        "kind": Kind.EXPLOITABLE,
        "severity": Severity.HIGH,
    }
    return SeenIssue(**(settings | changes))


def test_a_software_is_counted_once_a_server() -> None:
    """Twice on one server, as in two places, is one server; another version is another row."""
    fleet = SoftwareOverFleet()
    for issue in (seen(1), seen(1), seen(2), seen(3, version="2.0")):
        fleet.add(issue)
    assert {key: len(one.servers) for key, one in fleet.found.items()} == {
        ("openssl", "1.0"): 2,
        ("openssl", "2.0"): 1,
    }


def test_an_issue_of_the_server_itself_is_about_no_software() -> None:
    """It has no canonical name."""
    fleet = SoftwareOverFleet()
    fleet.add(seen(canonical_name="", software=""))
    assert fleet.found == {}


def test_the_worst_of_what_is_not_waived_counts() -> None:
    """A waived critical leaves the severity of the open one, and its server apart."""
    fleet = SoftwareOverFleet()
    fleet.add(seen(1, severity=Severity.CRITICAL, waived_until="2027-01-31"))
    fleet.add(seen(2, severity=Severity.MEDIUM, update_to="1.1"))
    (spread,) = fleet.found.values()
    assert spread.severity is Severity.MEDIUM
    assert spread.only_waived == {("main", 1)}
    assert spread.servers == {("main", 2)}
    assert spread.updates == {"1.1"}


def test_an_unknown_risk_sorts_like_the_worst() -> None:
    """Nobody can vouch that it is not a ten."""
    fleet = SoftwareOverFleet()
    fleet.add(seen(1, exploits=(IssueExploit(cve="CVE-1", risk=None),)))
    fleet.add(seen(2, canonical_name="php", exploits=(IssueExploit(cve="CVE-2", risk=9.9),)))
    unknown, known = fleet.found["openssl", "1.0"], fleet.found["php", "1.0"]
    assert unknown.risk_unknown
    assert unknown.badness < known.badness
    assert list(unknown.exploits) == ["CVE-1"]


def test_software_in_an_unknown_state_is_not_left_out() -> None:
    """Where PatrolServer does not tell whether it is supported, the server stands with it, as unknown."""
    fleet = SoftwareOverFleet()
    software = Software(name="Redis", canonical_name="redis", version="7", supported=None)
    fleet.add_unknown(("main", 4), [software], lambda name: name == "redis")
    fleet.add_unknown(("main", 5), [software], lambda _: False)
    (spread,) = fleet.found.values()
    assert spread.on == {("main", 4)}
    assert spread.servers == set()


def test_an_exploit_is_known_by_cve_then_id_then_title() -> None:
    """Without the first two it is only the same within its software."""
    assert exploit_key(IssueExploit(cve="CVE-1", id="7"), "a") == exploit_key(IssueExploit(cve="CVE-1", id="8"), "b")
    assert exploit_key(IssueExploit(id="7"), "a") == exploit_key(IssueExploit(id="7", title="t"), "b")
    assert exploit_key(IssueExploit(title="t"), "a") != exploit_key(IssueExploit(title="t"), "b")


def test_exploits_have_their_own_severity_and_waivers() -> None:
    """Not those of the issue they stand in; one that is waived alone is waived."""
    fleet = ExploitsOverFleet()
    low = IssueExploit(cve="CVE-LOW", risk=5.0)
    waived = IssueExploit(cve="CVE-WAIVED", risk=9.5, waived_until=UNTIL)
    fleet.add(seen(1, severity=Severity.CRITICAL, exploits=(low, waived)))
    fleet.add(seen(2, exploits=(low,), waived_until="2027-01-31"))
    by_name = {key.name: one for key, one in fleet.found.items()}
    assert by_name["CVE-LOW"].severity is Severity.MEDIUM
    assert by_name["CVE-LOW"].only_waived == {("main", 2)}
    assert by_name["CVE-WAIVED"].servers == set()
    assert by_name["CVE-WAIVED"].software == {"openssl"}


def test_only_what_is_asked_for_is_collected() -> None:
    """The filter sees exploit, severity and waiver."""
    fleet = ExploitsOverFleet(lambda _, severity, waived: severity is Severity.CRITICAL and not waived)
    fleet.add(seen(exploits=(IssueExploit(cve="A", risk=9.0), IssueExploit(cve="B", risk=5.0))))
    assert [key.name for key in fleet.found] == ["A"]


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(SEVERITIES), st.booleans()), min_size=1))
def test_no_order_of_issues_changes_what_is_found(rows: list[tuple[int, Severity, bool]]) -> None:
    """Servers, waived ones and the worst severity are the same however the issues come."""

    def collected(order: list[tuple[int, Severity, bool]]) -> tuple[object, ...]:
        fleet = SoftwareOverFleet()
        for server_id, severity, waived in order:
            fleet.add(seen(server_id, severity=severity, waived_until="2027-01-31" if waived else None))
        (spread,) = fleet.found.values()
        return spread.servers, spread.only_waived, spread.severity, spread.badness

    assert collected(rows) == collected(rows[::-1])
