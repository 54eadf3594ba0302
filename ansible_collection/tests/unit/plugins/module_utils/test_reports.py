# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports that other tools read."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils import judging, reports

NASTY = 'a<b>&"\'\x00\x1b]]>ü\u2028'
ISSUE = {
    "fingerprint": "f1",
    "account": "main",
    "server_id": 1,
    "server": "web1",
    "kind": "exploitable",
    "severity": "critical",
    "software": NASTY,
    "canonical_name": "php",
    "version": None,
    "update_to": "8.3",
    "location": "/srv",
    "risk": 9.8,
}
SERVERS = [
    {"account": "main", "id": 1, "name": "web1", "verdict": "fail", "reasons": []},
    {"account": "main", "id": 2, "name": "web2", "verdict": "pass", "reasons": []},
    {"account": None, "id": None, "name": NASTY, "verdict": "unknown", "reasons": [judging.reason("u", "who is " + NASTY)]},
]
FAILED = {
    **judging.nothing_known(),
    "verdict": "fail",
    "reasons": [judging.reason("max_by_severity.critical", "1 critical, 0 allowed")],
    "servers": SERVERS,
    "violations": [{"limit": limit, "allowed": 0, "found": 1, "issues": [ISSUE]} for limit in ("a", "b")],
}


def test_junit_counts_what_it_holds():
    """A case a server, one for the verdict, and text that XML can hold."""
    root = ElementTree.fromstring(reports.as_junit(FAILED).encode("utf-8"))
    suite = root.find("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {"tests": "4", "failures": "2", "errors": "1"}
    assert len(suite.findall("testcase")) == 4
    assert len(suite.findall("testcase/failure")) == 2
    assert "critical" in suite.find("testcase/failure").text


def test_junit_of_a_pass_is_green():
    """No failures, no errors."""
    passed = {**judging.nothing_known(), "verdict": "pass", "passed": True, "servers": SERVERS[1:2]}
    root = ElementTree.fromstring(reports.as_junit(passed).encode("utf-8"))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "0", "0")


def test_sarif_has_each_issue_once():
    """With its fingerprint, its level and a rule that is declared."""
    run = json.loads(reports.as_sarif(FAILED))["runs"][0]
    assert [result["partialFingerprints"] for result in run["results"]] == [{"patrolserver/v1": "f1"}]
    assert run["results"][0]["level"] == "error"
    assert run["results"][0]["ruleId"] in [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert run["invocations"][0]["executionSuccessful"] is True


def test_sarif_of_what_is_not_known_is_no_success():
    """An empty list of results alone would look clean."""
    run = json.loads(reports.as_sarif(judging.nothing_known()))["runs"][0]
    assert (run["results"], run["invocations"][0]["executionSuccessful"]) == ([], False)


def test_reports_say_how_much_they_do_not_list():
    """In the verdict's own case, and as a notification."""
    passed = {**judging.nothing_known(), "verdict": "pass", "passed": True, "servers_not_listed": 900}
    assert "<system-out>Not listed: 900 servers" in reports.as_junit(passed)
    run = json.loads(reports.as_sarif(passed))["runs"][0]
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]
    assert (notification["level"], notification["descriptor"]["id"]) == ("note", "not_listed")
    assert "Not listed" not in reports.as_junit(FAILED)


@pytest.mark.parametrize(("path", "kind"), [("a.xml", "junit"), ("A.SARIF", "sarif"), ("a.json", "json"), ("report", "json")])
def test_the_name_decides_the_format(path, kind):
    """Unless the task does."""
    assert reports.format_of(path) == kind
    assert reports.render(kind, FAILED)


def test_an_issue_in_one_line():
    """What, where, and what to do."""
    issue = {**ISSUE, "software": "PHP", "version": "5.6"}
    assert reports.sentence(issue) == "critical: PHP 5.6 is exploitable at /srv, update to 8.3, risk 9.8"


def test_an_issue_in_one_line_names_its_exploits():
    """The worst that count, and since when it has been so bad."""
    exploits = [
        {"id": "7", "cve": None, "title": None, "risk": None},
        {"id": "8", "cve": "CVE-2026-0008", "title": "Overflow", "risk": 9.8},
        {"id": None, "cve": None, "title": "Injection", "risk": 9.1},
        {"id": None, "cve": None, "title": None, "risk": 9.0},
    ]
    times = {"first_seen": "2026-11-20T07:12:00Z", "severity_since": "2026-11-23T07:12:00Z"}
    issue = {**ISSUE, "software": "PHP", "location": "/", "update_to": None, "exploits": exploits, **times}
    assert reports.sentence(issue) == (
        "critical: PHP (version unknown) is exploitable, risk 9.8 (7 of unknown risk, CVE-2026-0008, Injection, 1 more),"
        " critical since 2026-11-23T07:12:00Z"
    )
    covered = [{**exploits[1], "waived": True}, exploits[2]]
    assert reports.sentence({**issue, "exploits": covered, "risk": 9.1}).endswith(" is exploitable, risk 9.1 (Injection)")


def test_an_issue_of_the_server_itself_is_told_by_its_title():
    """It names no software."""
    issue = {**ISSUE, "kind": "reported", "severity": "high", "software": "", "location": None, "update_to": None, "risk": None}
    assert reports.sentence({**issue, "title": "TLS 1.0 is offered"}) == "high: TLS 1.0 is offered is reported"
    assert reports.sentence(issue) == "high: the server is reported"
