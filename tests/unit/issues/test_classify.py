from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.issues.builders import EXPLOIT_RISK, SOFTWARE, exploitable, outdated, software, unsupported

from patrolserver_exporter.issues.classify import counted_exploits, followed, kind_of, severity_of, state_of
from patrolserver_exporter.issues.model import SEVERITIES, IssueExploit, Kind, Severity, State
from patrolserver_exporter.patrolserver.models import Exploit, Software


@pytest.mark.parametrize(
    ("installed", "state"),
    [
        (software(), State.SUPPORTED),
        (outdated(), State.OUTDATED),
        (unsupported(), State.UNSUPPORTED),
        (unsupported(newest_bugfix_release=""), State.UNSUPPORTED),
        (unsupported(version=None, candidates=("1.0", "1.1")), State.UNSUPPORTED),
        (unsupported(version=None), State.UNKNOWN),
        (software(version=None), State.UNKNOWN),
        (software(supported=None), State.UNKNOWN),
        (outdated(supported=None), State.UNKNOWN),
    ],
)
def test_state(installed: Software, state: State) -> None:
    """A software stands as the vendor's own scanner words it, and nobody knows while something is missing."""
    assert state_of(installed) is state


@pytest.mark.parametrize(
    ("installed", "kind"),
    [
        (software(), None),
        (outdated(), Kind.OUTDATED),
        (unsupported(), Kind.UNSUPPORTED),
        (unsupported(supported=None), None),
    ],
)
def test_kind(installed: Software, kind: Kind | None) -> None:
    """Only what is known to be wrong with a version is an issue."""
    assert kind_of(installed) is kind


@pytest.mark.parametrize(
    ("kind", "risk", "severity"),
    [
        (Kind.EXPLOITABLE, 10.0, Severity.CRITICAL),
        (Kind.EXPLOITABLE, 9.0, Severity.CRITICAL),
        (Kind.EXPLOITABLE, 8.9, Severity.HIGH),
        (Kind.EXPLOITABLE, 7.0, Severity.HIGH),
        (Kind.EXPLOITABLE, 6.9, Severity.MEDIUM),
        (Kind.EXPLOITABLE, 4.0, Severity.MEDIUM),
        (Kind.EXPLOITABLE, 3.9, Severity.LOW),
        (Kind.EXPLOITABLE, None, Severity.HIGH),
        (Kind.UNSUPPORTED, None, Severity.HIGH),
        (Kind.REPORTED, None, Severity.HIGH),
        (Kind.OUTDATED, None, Severity.MEDIUM),
    ],
)
def test_severity(kind: Kind, risk: float | None, severity: Severity) -> None:
    """The severities follow the documented table, limits included."""
    assert severity_of(kind, risk) is severity


@given(lower=st.floats(0, 10), higher=st.floats(0, 10))
def test_severity_grows_with_the_risk(lower: float, higher: float) -> None:
    """A higher risk is never less severe."""
    lower, higher = sorted((lower, higher))
    ranks = [SEVERITIES.index(severity_of(Kind.EXPLOITABLE, risk)) for risk in (lower, higher)]
    assert ranks[1] <= ranks[0]


def test_exploits_count_from_the_threshold_on() -> None:
    """An exploit counts at the threshold and above, and one that nobody rated however high it is."""
    exploits = tuple(Exploit(risk=risk) for risk in (4.9, 5.0, None, 9.1))
    assert counted_exploits(software(exploits=exploits), EXPLOIT_RISK) == exploits[1:]
    assert counted_exploits(exploitable(risk=None), 10.0) == (Exploit(risk=None),)


@given(SOFTWARE)
def test_unknown_is_never_an_issue(installed: Software) -> None:
    """A software whose support nobody knows has no issue of its version."""
    if installed.supported is None:
        assert kind_of(installed) is None


def test_entries_of_one_name_are_told_apart_by_their_risks() -> None:
    """In whatever order a poll lists them, each has been known since it was first seen."""
    before = [IssueExploit(cve="CVE-1", risk=5.0, first_seen=1.0), IssueExploit(cve="CVE-1", risk=9.0, first_seen=2.0)]
    found = [Exploit(cve="CVE-1", risk=9.0), Exploit(cve="CVE-1", risk=5.0)]
    after, more = followed(before, found, 3.0, keep=False)
    assert not more
    assert [(one.risk, one.first_seen) for one in after] == [(9.0, 2.0), (5.0, 1.0)]


@pytest.mark.parametrize("field", ["risk", "title", "id"])
def test_another_cve_is_another_exploit(field: str) -> None:
    """What else they have in common does not make them the same."""
    common = {"risk": 5.0, field: {"risk": 5.0, "title": "Overflow", "id": "1"}[field]}
    after, more = followed(
        [IssueExploit(cve="CVE-1", first_seen=1.0, **common)],  # type: ignore[arg-type]
        [Exploit(cve="CVE-2", **common)],  # type: ignore[arg-type]
        3.0,
        keep=False,
    )
    assert more
    assert [(one.cve, one.first_seen) for one in after] == [("CVE-2", 3.0)]


def test_what_a_poll_does_not_show_is_kept_once_if_asked_to() -> None:
    """Beside what it shows, and no exploit twice."""
    before = [IssueExploit(id="1", risk=9.0, first_seen=1.0), IssueExploit(id="2", risk=5.0, first_seen=1.0)]
    kept, _ = followed(before, [Exploit(id="1", risk=9.0)], 3.0, keep=True)
    assert list(kept) == before
    left, _ = followed(before, [Exploit(id="1", risk=9.0)], 3.0, keep=False)
    assert list(left) == before[:1]


def test_what_is_told_of_a_known_exploit_is_taken_over() -> None:
    """A name that it did not have is added, and one that is left out stays."""
    (after,), _ = followed([IssueExploit(id="1", risk=5.0)], [Exploit(id="1", cve="CVE-1", title="T")], 3.0, keep=False)
    assert (after.id, after.cve, after.title, after.risk) == ("1", "CVE-1", "T", None)
    (later,), _ = followed([after], [Exploit(id="1", risk=6.0)], 4.0, keep=False)
    assert (later.cve, later.title, later.risk, later.first_seen) == ("CVE-1", "T", 6.0, 0.0)


@pytest.mark.parametrize(("risk", "after"), [(8.9, None), (9.0, 9.0), (9.8, 9.8)])
def test_a_risk_that_is_no_longer_told_makes_the_worst_no_better(risk: float, after: float | None) -> None:
    """From 9 on it stays; below, nobody knows any more, which may be the worst."""
    ((same,), _) = followed([IssueExploit(id="1", risk=risk)], [Exploit(id="1", risk=None)], 3.0, keep=False)
    assert same.risk == after
