from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.issues.builders import EXPLOIT_RISK, SOFTWARE, exploitable, outdated, software, unsupported

from patrolserver_exporter.issues.derive import derive, undecided
from patrolserver_exporter.issues.model import Identity, IssueClass, Kind, Severity
from patrolserver_exporter.patrolserver.models import Exploit, Software


def test_fine_software_has_no_findings() -> None:
    """Software that is supported and without exploits is no issue."""
    assert derive([software("php"), software("nginx")], EXPLOIT_RISK) == ()


def test_one_software_may_have_both_classes() -> None:
    """An outdated software with an exploit is two issues: one of its version, one of the exploit."""
    found = derive([outdated(exploits=(Exploit(risk=7.5),), location="/")], EXPLOIT_RISK)
    assert [(finding.kind, finding.severity, finding.risk) for finding in found] == [
        (Kind.OUTDATED, Severity.MEDIUM, None),
        (Kind.EXPLOITABLE, Severity.HIGH, 7.5),
    ]


def test_locations_are_told_apart() -> None:
    """The same software at two places is two issues."""
    found = derive([outdated(location="/a"), outdated(location="/b"), outdated()], EXPLOIT_RISK)
    assert [finding.location for finding in found] == [None, "/a", "/b"]


def test_duplicates_are_merged_and_the_worst_stands() -> None:
    """A software listed twice with the same name and location is one issue, the worst."""
    (finding,) = derive([outdated(), unsupported(), software(), outdated()], EXPLOIT_RISK)
    assert finding.kind is Kind.UNSUPPORTED


def test_of_two_as_bad_the_choice_does_not_depend_on_the_order() -> None:
    """A software listed twice in two versions is told with one of them, always the same."""
    twice = [outdated(version="1.0"), outdated(version="2.0"), outdated(version=None, candidates=())]
    for listed in itertools.permutations(twice):
        (finding,) = derive(listed, EXPLOIT_RISK)
        assert (finding.version, finding.update_to) == ("2.0", "1.1")
    updates = [outdated(newest_bugfix_release=release) for release in ("1.1", "1.3", "1.2")]
    assert {derive(listed, EXPLOIT_RISK)[0].update_to for listed in itertools.permutations(updates)} == {"1.3"}


def test_a_software_that_is_listed_twice_has_the_exploits_of_both() -> None:
    """Each of them once, the worst first, also where only one entry tells it."""
    first, second = Exploit(cve="CVE-1", risk=9.8), Exploit(cve="CVE-2", risk=5.0)
    twice = [software(exploits=(second,)), software(exploits=(first, second))]
    (finding,) = derive(twice, EXPLOIT_RISK)
    assert finding.exploits == (first, second)
    assert (finding.severity, finding.risk) == (Severity.CRITICAL, 9.8)
    (finding,) = derive([software(exploits=(first,)), software(exploits=(second,))], EXPLOIT_RISK)
    assert finding.exploits == (first, second)


def test_highest_risk_stands() -> None:
    """Of several exploits the highest risk decides."""
    exploits = tuple(Exploit(risk=risk) for risk in (5.0, 9.8, None))
    (finding,) = derive([software(exploits=exploits), exploitable(risk=6.0)], EXPLOIT_RISK)
    assert finding.risk == 9.8


@given(st.lists(SOFTWARE, max_size=8).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))))
def test_order_does_not_matter(lists: tuple[list[Software], list[Software]]) -> None:
    """The findings are the same in whatever order the software is listed, and each identity is there once."""
    found = derive(lists[0], EXPLOIT_RISK)
    assert derive(lists[1], EXPLOIT_RISK) == found
    assert len({finding.identity for finding in found}) == len(found)


def test_undecided() -> None:
    """Missing support leaves the version undecided, missing exploits the exploit; however name and place are spelt."""
    listed = [software("A", supported=None), software("b", exploits=None, location="/srv"), software("c")]
    assert undecided(listed) == {
        Identity("a", None, IssueClass.VERSION),
        Identity("b", "/srv", IssueClass.EXPLOIT),
    }
    assert undecided([software("a", supported=None, location="/")]) == {Identity("a", None, IssueClass.VERSION)}


def test_a_finding_tells_which_software_it_is() -> None:
    """Name, version, parent and the version to take are those of the software that is listed."""
    (finding,) = derive([outdated(name="PHP", version="8.1.0", parent="apache")], EXPLOIT_RISK)
    assert (finding.software, finding.version, finding.parent) == ("PHP", "8.1.0", "apache")


def test_of_two_exploits_of_one_severity_the_riskier_stands() -> None:
    """A software that is listed twice is as risky as the worse of the two."""
    twice = [software(exploits=(Exploit(risk=risk),)) for risk in (9.1, 9.8)]
    for listed in itertools.permutations(twice):
        assert [finding.risk for finding in derive(listed, EXPLOIT_RISK)] == [9.8]
