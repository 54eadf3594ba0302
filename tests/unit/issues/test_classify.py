from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.issues.builders import EXPLOIT_RISK, SOFTWARE, exploitable, outdated, software, unsupported

from patrolserver_exporter.issues.classify import counted_exploits, kind_of, severity_of, state_of
from patrolserver_exporter.issues.model import SEVERITIES, Kind, Severity, State
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
