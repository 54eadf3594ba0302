from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.issues.builders import (
    ACCOUNT,
    EXPLOIT_RISK,
    SERVER,
    SOFTWARE,
    exploitable,
    issue,
    outdated,
    software,
    unsupported,
)

from patrolserver_exporter.issues.classify import weighed
from patrolserver_exporter.issues.model import IssueExploit, Kind
from patrolserver_exporter.issues.summary import ServerSummary, cut_label, summarise
from patrolserver_exporter.patrolserver.models import Exploit, Server, Software

if TYPE_CHECKING:
    from collections.abc import Sequence


def summary(installed: Sequence[Software] | None = (), **fields: Any) -> ServerSummary:
    """The summary of a polled server without issues, unless told otherwise."""
    known: dict[str, Any] = {
        "account": ACCOUNT,
        "server": Server(id=SERVER, name="web1", verified=True),
        "issues": (),
        "exploit_risk": EXPLOIT_RISK,
        "scanning": False,
        "last_scan_at": None,
        "last_poll_at": 1000.0,
        "poll_success": True,
    }
    return summarise(software=installed, **(known | fields))


def test_nothing_known_shows_no_counts() -> None:
    """While neither a poll nor an event told anything, there are no counts, not zeros."""
    unknown = summary(None, last_poll_at=None, poll_success=False)
    assert unknown.open_issues is None
    assert unknown.software is None


def test_an_event_alone_makes_counts() -> None:
    """An issue that an event opened counts before the first poll."""
    told = summary(None, issues=[issue(kind=Kind.REPORTED, event_received_at=1.0)], last_poll_at=None)
    assert told.open_issues == (0, 1, 0, 0)
    assert told.software is None


def test_open_waived_and_fixed_are_counted_apart() -> None:
    """Waived issues are counted as waived and not as open, fixed ones not at all, and neither is the oldest."""
    waived: dict[str, Any] = {"waived_until": dt.date(2027, 1, 31), "waived_reason": "why"}
    made = summary(
        issues=[
            issue("a", Kind.EXPLOITABLE, risk=9.0, first_seen=50.0),
            issue("b", first_seen=30.0),
            issue("c", first_seen=20.0),
            issue("d", first_seen=10.0, **waived),
            issue("e", first_seen=5.0, fixed_at=6.0),
            issue("f", first_seen=5.0, fixed_at=6.0, **waived),
        ]
    )
    assert made.open_issues == (1, 0, 2, 0)
    assert made.waived_issues == 1
    assert made.oldest_issue == (50.0, None, 20.0, None)


def test_the_oldest_is_the_one_that_has_its_severity_for_longest() -> None:
    """Not the one that was seen first: an issue that became critical today is no old critical one."""
    since = {"at_least_since": (80.0, 80.0, 10.0, 10.0), "severity_since": 80.0}
    turned = issue("a", Kind.EXPLOITABLE, risk=9.0, first_seen=10.0, **since)
    made = summary(issues=[turned, issue("b", Kind.EXPLOITABLE, risk=9.5, first_seen=70.0)])
    assert made.oldest_issue == (70.0, None, None, None)


def test_what_waivers_leave_of_an_issue_counts() -> None:
    """With the worst exploit covered the issue is one of the next, since it was so or worse."""
    exploits = (
        IssueExploit(id="1", risk=9.8, first_seen=80.0, waived_until=dt.date(2027, 1, 31)),
        IssueExploit(id="2", risk=5.0, first_seen=10.0),
    )
    since = {"at_least_since": (80.0, 80.0, 10.0, 10.0), "severity_since": 80.0}
    left = weighed(issue("a", Kind.EXPLOITABLE, risk=9.8, first_seen=10.0, exploits=exploits, **since))
    made = summary(issues=[left])
    assert (made.open_issues, made.waived_issues) == ((0, 0, 1, 0), 0)
    assert made.oldest_issue == (None, None, 10.0, None)


def test_software_by_state_and_exploits() -> None:
    """Software is counted by state, exploits from the threshold on; the highest risk is that of all known ones."""
    made = summary(
        [
            software("a", exploits=(Exploit(risk=4.5), Exploit(risk=None), Exploit(risk=5.0))),
            outdated("b"),
            unsupported("c"),
            software("d", supported=None, exploits=None),
        ]
    )
    assert made.software == (1, 1, 1, 1)
    assert (made.exploits, made.exploits_unknown_risk) == (2, 1)
    assert made.exploit_risk_max == 5.0


@pytest.mark.parametrize("installed", [(software("a"),), (software("a"), outdated("b"))])
def test_the_highest_risk_without_exploits_is_zero(installed: Sequence[Software]) -> None:
    """A server whose software was listed, and has no exploit, has no risk; the least exploit counts."""
    assert summary(installed).exploit_risk_max == 0.0
    assert summary((*installed, exploitable("c", risk=0.1))).exploit_risk_max == 0.1


def test_no_zero_where_nobody_knows() -> None:
    """The highest risk is none while no risk is known, and so is the number of exploits that the API does not tell."""
    unrated = summary([exploitable("a", risk=None)])
    assert (unrated.exploits, unrated.exploits_unknown_risk, unrated.exploit_risk_max) == (1, 1, None)
    silent = summary([software("a", exploits=None)])
    assert (silent.exploits, silent.exploits_unknown_risk, silent.exploit_risk_max) == (None, 0, None)
    clean = summary([software("a"), software("b", exploits=None)])
    assert (clean.exploits, clean.exploits_unknown_risk, clean.exploit_risk_max) == (0, 0, 0.0)


def test_series_only_of_what_is_not_fine() -> None:
    """Outdated, unsupported and exploitable software has a series, supported and unknown has none."""
    made = summary(
        [
            software("fine"),
            software("unknown", supported=None),
            software("harmless", exploits=(Exploit(risk=1.0),)),
            outdated("old", parent="app", location="/srv"),
            unsupported("dead", version=None, candidates=("1.0",)),
            exploitable("open"),
            exploitable("unrated", risk=None),
        ]
    )
    shown = [
        (info.software, info.version, info.update_to, info.state, info.location, info.parent, info.severity, info.risk)
        for info in made.software_info
    ]
    assert shown == [
        ("dead", "<=1.0", "", "unsupported", "", "", "high", ""),
        ("old", "1.0", "1.1", "outdated", "/srv", "app", "medium", ""),
        ("open", "1.0", "", "supported", "", "", "critical", "9"),
        ("unrated", "1.0", "", "supported", "", "", "high", "unknown"),
    ]


def test_series_of_exploits() -> None:
    """Each one that counts has a series, by its CVE, else its id, else its title; equal label sets are merged."""
    known = (
        Exploit(id="1", cve="CVE-1", title="x", risk=9.8),
        Exploit(id="2", title="x", risk=5.0),
        Exploit(title="x", risk=None),
        Exploit(risk=7.0),
        Exploit(risk=7.0),
        Exploit(id="3", risk=1.0),
    )
    made = summary([software("a", exploits=known)])
    assert [(info.software, info.exploit, info.risk) for info in made.exploit_info] == [
        ("a", "", "7"),
        ("a", "2", "5"),
        ("a", "CVE-1", "9.8"),
        ("a", "x", "unknown"),
    ]
    few = summary([software("a", exploits=known)], software_limit_per_server=2)
    assert [info.exploit for info in few.exploit_info] == ["CVE-1", "x"]
    assert few.exploit_info_dropped == 2
    off = summary([software("a", exploits=known)], exploit_series=False)
    assert (off.exploit_info, off.exploit_info_dropped) == ((), 0)


def test_the_worst_series_are_kept() -> None:
    """Beyond the limit per server the least bad series are cut off, and counted."""
    listed = [outdated("a"), unsupported("b"), exploitable("c", risk=9.9), exploitable("d", risk=9.1), outdated("e")]
    made = summary(listed, software_limit_per_server=3)
    assert [info.software for info in made.software_info] == ["b", "c", "d"]
    assert made.software_info_dropped == 2


def test_the_order_under_the_limit() -> None:
    """The worst severity of each comes first, in it the highest risk, and then the name."""
    worst_first = [
        exploitable("z", risk=9.9),
        outdated("w", exploits=(Exploit(risk=9.5),)),
        exploitable("y", risk=9.1),
        exploitable("x", risk=7.0),
        unsupported("u"),
        unsupported("v"),
        outdated("a"),
    ]
    names = [one.canonical_name for one in worst_first]
    for limit in range(len(names) + 1):
        made = summary(worst_first[::-1], software_limit_per_server=limit)
        assert [info.software for info in made.software_info] == sorted(names[:limit])
        assert made.software_info_dropped == len(names) - limit


def test_of_equal_label_sets_the_worst_counts() -> None:
    """Two that show as one series rank as the worse of the two."""
    twins = [exploitable("twin", risk=9.5, id=1), exploitable("twin", risk=9.1, id=2)]
    for listed in twins, twins[::-1]:
        made = summary([*listed, exploitable("other", risk=9.3)], software_limit_per_server=1)
        assert [info.software for info in made.software_info] == ["twin"]


def test_software_series_may_be_off() -> None:
    """Without the series nothing is cut off either."""
    made = summary([outdated("a")], software_series=False)
    assert (made.software_info, made.software_info_dropped) == ((), 0)


def test_what_only_an_event_reported_is_listed_with_the_software() -> None:
    """It has the state ``reported`` and its severity; where it names no software, its title stands for that."""
    named = issue(kind=Kind.REPORTED, version="7.4", event_received_at=1.0)
    unnamed = issue("", kind=Kind.REPORTED, title="A port is open.", event_received_at=1.0)
    made = summary([outdated("a")], issues=[named, unnamed])
    shown = [(info.software, info.version, info.state, info.severity) for info in made.software_info]
    assert ("php", "7.4", "reported", "high") in shown
    assert ("A port is open.", "", "reported", "high") in shown
    assert len(shown) == 3
    fixed = summary([], issues=[issue(kind=Kind.REPORTED, event_received_at=1.0, fixed_at=2.0)])
    assert fixed.software_info == ()


def test_equal_label_sets_are_one_series() -> None:
    """Software that differs in nothing that is shown is one series."""
    made = summary([outdated("a", id=1), outdated("a", id=2)], software_limit_per_server=1)
    assert len(made.software_info) == 1
    assert made.software_info_dropped == 0


def test_long_labels_stay_distinct() -> None:
    """Labels that are cut end in a hash, so that two that begin alike stay two."""
    made = summary([outdated("a", location="/x" * 200 + end) for end in "12"], max_label_length=40)
    assert len(made.software_info) == 2
    assert all(len(info.location) == 40 for info in made.software_info)


@given(st.text(), st.integers(0, 40))
def test_a_label_is_never_longer_than_its_limit(value: str, limit: int) -> None:
    """Whatever the text, its label keeps the limit, and short text stays as it is."""
    cut = cut_label(value, limit)
    assert len(cut) <= limit
    assert (cut == value) == (len(value) <= limit)


@given(
    st.lists(SOFTWARE, max_size=8).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))),
    st.integers(0, 4),
)
def test_order_does_not_matter(lists: tuple[list[Software], list[Software]], limit: int) -> None:
    """The series are the same in whatever order the software is listed, within the limit, and add up."""
    made, other = (summary(listed, software_limit_per_server=limit) for listed in lists)
    assert made == other
    assert len(set(made.software_info)) == len(made.software_info) <= limit
    assert made.software is not None
    assert sum(made.software) == len(lists[0])
