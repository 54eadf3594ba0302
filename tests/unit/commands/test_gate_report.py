"""What the gate command shows: read without trust, and the worst first."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from patrolserver_exporter.commands import gate_report
from patrolserver_exporter.commands.gate_report import MAX_LINES, NoVerdict

COUNTS = {"critical": 1, "high": 0, "medium": 2, "low": 0, "total": 3, "waived": 1, "baseline": 0, "unfixable": 0}


def issue(name: str, severity: str, **more: Any) -> dict[str, Any]:
    found = {
        "fingerprint": f"print-of-{name}",
        "account": "main",
        "server": "web-1",
        "kind": "exploitable",
        "severity": severity,
        "software": name,
        "canonical_name": name.lower(),
    }
    return found | more


def server(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "account": "main", "verdict": verdict, "counts": COUNTS, "data_age_seconds": 90.0} | more


FAILS: dict[str, Any] = {
    "verdict": "fail",
    "passed": False,
    "judged_at": "2026-11-26T03:00:00Z",
    "policy": "production",
    "reasons": [{"code": "limit_exceeded", "message": "1 critical is more than 0", "server": "web-1"}],
    "counts": COUNTS,
    "servers_by_verdict": {"pass": 1, "fail": 1, "unknown": 1},
    "servers": [
        server("fine", "pass"),
        server("dark", "unknown", counts=None, data_age_seconds=None, reasons=[{"code": "x", "message": "old"}]),
        server("web-1", "fail"),
    ],
    "violations": [
        {
            "limit": "max_by_severity.critical",
            "allowed": 0,
            "found": 1,
            "issues": [issue("OpenSSL", "critical", risk=9.8, version="1.0", update_to="1.1", location="/usr")],
        }
    ],
    "waived": [issue("PHP", "medium", waiver={"until": "2027-01-31", "reason": "replaced"})],
}
PASSES: dict[str, Any] = {
    "verdict": "pass",
    "passed": True,
    "servers_by_verdict": {"pass": 1, "fail": 0, "unknown": 0},
    "servers": [server("fine", "pass")],
}


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "maybe"},
        {"passed": 1},
        {"passed": False},
        {"servers": [server("fine", "fail")]},
        {"servers": []},
        {"servers_by_verdict": {"pass": 1, "fail": 0, "unknown": 1}},
        {"servers_by_verdict": {"pass": 0, "fail": 0, "unknown": 0}, "servers": []},
        {"violations": FAILS["violations"]},
        {"issues_not_listed": 1},
        {"reasons": [{"code": "x", "message": "y"}]},
        {"servers": [server("fine", "pass", reasons=[{"code": "x", "message": "y", "blocking": True}])]},
        {"servers": "none"},
    ],
    ids=str,
)
def test_an_answer_that_contradicts_itself_is_no_verdict(change: dict[str, Any]) -> None:
    """A pass that anything speaks against passes nothing."""
    assert gate_report.read(PASSES).passed
    with pytest.raises(NoVerdict):
        gate_report.read(PASSES | change)


ASKED_AT = 1_795_662_000.0
"""Three in the morning of 26 November 2026."""
ASKED: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({"servers": ["fine"]}, {}, None),
    ({"servers": ["FINE", "f*", "[f]ine"]}, {}, None),
    ({"servers": ["fine", "db-*"]}, {}, r"without saying anything of db-\*"),
    ({"servers": ["fine"], "asked_at": ASKED_AT}, {"judged_at": "2026-11-26T03:00:00Z"}, None),
    ({"servers": ["fine"], "asked_at": ASKED_AT}, {"judged_at": "2026-11-26T04:14:00+01:00"}, None),
    ({"servers": ["fine"], "asked_at": ASKED_AT + 800}, {"judged_at": "2026-11-26T03:00:00.5Z"}, None),
    ({"servers": ["fine"], "asked_at": ASKED_AT - 3600}, {"judged_at": "2026-11-26T03:00:00Z"}, None),
    ({"servers": ["fine"], "asked_at": ASKED_AT + 901}, {"judged_at": "2026-11-26T03:00:00Z"}, "and not of now"),
    ({"servers": ["fine"], "asked_at": ASKED_AT}, {"judged_at": "2019-01-01T00:00:00Z"}, "is of 2019-01-01"),
    ({"servers": ["fine"], "asked_at": ASKED_AT}, {"judged_at": "2026-11-26T03:00:00"}, "and not of now"),
    ({"servers": ["fine"], "asked_at": ASKED_AT}, {"judged_at": "lately"}, "is of lately"),
    ({"servers": ["fine"], "asked_at": ASKED_AT}, {}, None),
    ({"servers": ["07"]}, {"servers": [server("fine", "pass", id=7)]}, None),
    ({"servers": ["fine", "web-2"]}, {}, "without saying anything of web-2"),
    ({"servers": ["8", "*"]}, {"servers": [server("fine", "pass", id=7)]}, "without saying anything of 8"),
    ({"servers": ["8"]}, {"servers": [server("fine", "pass", id=7)]}, "is about fine, which was not asked for"),
    ({"servers": ["db-*"]}, {}, "is about fine, which was not asked for"),
    (
        {"servers": ["db-*"]},
        {"servers_not_listed": 1, "servers_by_verdict": {"pass": 2, "fail": 0, "unknown": 0}},
        "is about fine, which was not asked for",
    ),
    ({"servers": ["web-2"]}, {"servers": [], "servers_not_listed": 1}, None),
    ({"servers": ["fine"], "policy": "production"}, {"policy": "production"}, None),
    ({"servers": ["fine"], "policy": "production"}, {"policy": "lax"}, "by the policy lax"),
    ({"servers": ["fine"], "policy": "production"}, {}, "by the policy None"),
    ({"servers": ["fine"], "account": "main"}, {"servers": [server("fine", "pass", account="main")]}, None),
    ({"servers": ["fine"], "account": "main"}, {"servers": [server("fine", "pass", account="lab")]}, "another account"),
    ({"servers": ["fine"], "account": "main"}, {"servers": [server("fine", "pass", account=None)]}, "another account"),
]


@pytest.mark.parametrize(("asked", "change", "why"), ASKED, ids=str)
def test_a_pass_has_to_be_about_what_was_asked(asked: dict[str, Any], change: dict[str, Any], why: str | None) -> None:
    """A proxy that keeps answers gives one of another question."""
    reply = gate_report.read(PASSES | change)
    question = {"account": None, "policy": None} | asked
    if why is None:
        gate_report.check(reply, **question)
    else:
        with pytest.raises(NoVerdict, match=why):
            gate_report.check(reply, **question)


@pytest.mark.parametrize("data", [None, [], "pass", {}, {"verdict": "pass"}], ids=str)
def test_something_else_is_no_verdict(data: object) -> None:
    """A login page in JSON is no gate."""
    with pytest.raises(NoVerdict):
        gate_report.read(data)


def test_a_doubt_turns_a_pass_into_unknown_and_leaves_a_fail() -> None:
    """A refresh that failed is one more reason."""
    doubted = gate_report.with_doubt(PASSES | {"reasons": []}, "refresh_failed", "no poll")
    assert (doubted["verdict"], doubted["passed"]) == ("unknown", False)
    assert gate_report.with_doubt(FAILS, "refresh_failed", "no poll")["verdict"] == "fail"


def test_a_doubt_about_a_server_is_its_own_too() -> None:
    """What could not be polled stands nowhere as one that passed; one that fails goes on to fail."""
    doubted = gate_report.with_doubt(PASSES | {"reasons": []}, "refresh_failed", "no poll", "fine")
    assert doubted["servers_by_verdict"] == {"pass": 0, "fail": 0, "unknown": 1}
    reply = gate_report.read(doubted)
    assert [(one.verdict, one.reasons[0].code) for one in reply.servers] == [("unknown", "refresh_failed")]
    failing = gate_report.with_doubt(FAILS, "refresh_failed", "no poll", "web-1")
    assert failing["servers_by_verdict"] == FAILS["servers_by_verdict"]
    assert failing["servers"] == FAILS["servers"]


def test_a_table_has_the_worst_first_and_the_verdict_on_top() -> None:
    """The failing server stands before the unknown one, both before the fine one; nobody's number is a dash."""
    text = gate_report.as_table(gate_report.read(FAILS), whole=True)
    assert text.index("web-1") < text.index("dark") < text.index("fine")
    assert "fail" in text.splitlines()[0].lower()
    assert "OpenSSL 1.0 in /usr is exploitable (risk 9.8); update to 1.1" in text
    assert "–" in text
    assert "replaced" in text


def test_a_table_of_a_large_fleet_fits_a_terminal() -> None:
    """Twenty lines, with the rest counted."""
    many = FAILS | {
        "servers": [server(f"web-{n}", "fail") for n in range(200)],
        "servers_by_verdict": {"pass": 0, "fail": 200, "unknown": 0},
        "violations": [
            {"limit": "max_total", "allowed": 0, "found": 99, "issues": [issue(f"S{n}", "high") for n in range(99)]}
        ],
    }
    text = gate_report.as_table(gate_report.read(many))
    assert len(text.splitlines()) <= MAX_LINES
    assert "more" in text
    assert len(gate_report.as_table(gate_report.read(many), whole=True).splitlines()) > 200


def test_letters_that_would_move_a_cursor_are_replaced() -> None:
    """Names come from elsewhere."""
    text = gate_report.as_table(gate_report.read(FAILS | {"servers": [server("a\x1b[2Jb\nc", "fail")]}), whole=True)
    assert "\x1b" not in text
    assert "b\nc" not in text


def test_junit_has_a_case_for_the_verdict_and_each_server() -> None:
    """A failure for fail, an error for unknown, nothing for pass; the counts are those of the cases."""
    suite = ET.fromstring(gate_report.as_junit(gate_report.read(FAILS)))  # noqa: S314 - our own
    suite = suite if suite.tag == "testsuite" else suite[0]
    cases = {str(case.get("name")): [child.tag for child in case] for case in suite.iter("testcase")}
    assert any("web-1" in name and "failure" in found for name, found in cases.items())
    assert any("dark" in name and "error" in found for name, found in cases.items())
    assert any("fine" in name and not {"failure", "error"} & set(found) for name, found in cases.items())
    assert len(cases) == 4


def test_sarif_has_what_is_over_a_limit_and_what_is_waived() -> None:
    """A result for each, suppressed where waived; every rule that is used is there, with its weight."""
    document = json.loads(gate_report.as_sarif(gate_report.read(FAILS)))
    (run,) = document["runs"]
    results = {result["message"]["text"].split()[1]: result for result in run["results"]}
    assert set(results) == {"OpenSSL", "PHP"}
    assert results["PHP"]["suppressions"]
    assert not results["OpenSSL"].get("suppressions")
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in results.values()} <= set(rules)
    assert float(rules["exploitable/critical"]["properties"]["security-severity"]) >= 9


def test_no_answer_is_a_report_too() -> None:
    """Every form can be made of it, and each says that nobody knows."""
    reply = gate_report.read(gate_report.unanswered("exporter_unavailable", "nobody answers", "2026-11-26T03:00:00Z"))
    assert reply.verdict == "unknown"
    assert "nobody answers" in gate_report.as_table(reply)
    assert "nobody answers" in gate_report.as_junit(reply)
    run = json.loads(gate_report.as_sarif(reply))["runs"][0]
    assert run["invocations"][0]["executionSuccessful"] is False
