# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verdict as a file that other tools read: JSON, JUnit or SARIF."""

from __future__ import annotations

import json
import re
from xml.sax.saxutils import escape, quoteattr

from ansible_collections.patrolserver.monitoring.plugins.module_utils.judging import is_blocking, not_listed

FORMATS = ["json", "junit", "sarif"]
BY_SUFFIX = {".json": "json", ".xml": "junit", ".junit": "junit", ".sarif": "sarif"}
LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}
SECURITY_SEVERITY = {"critical": "9.5", "high": "7.5", "medium": "5.0", "low": "2.0"}
NAMED_EXPLOITS = 3
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def format_of(path: str) -> str:
    """Return the format that a file's name asks for; JSON if it asks for none."""
    for suffix, name in BY_SUFFIX.items():
        if path.lower().endswith(suffix):
            return name
    return "json"


def render(kind: str, verdict: dict) -> str:
    """Return the report's text; ``verdict`` is what the gate module returns."""
    return {"json": as_json, "junit": as_junit, "sarif": as_sarif}[kind](verdict)


def as_json(verdict: dict) -> str:
    """Return the verdict itself."""
    return json.dumps(verdict, indent=2, sort_keys=True) + "\n"


def as_junit(verdict: dict) -> str:
    """Return one suite with a test case for each server; one that has violations fails, one that is unknown is in error."""
    issues = violating(verdict)
    cases, counts = [], {"tests": 0, "failures": 0, "errors": 0}
    for server in verdict["servers"]:
        own = [issue for issue in issues if _of_server(issue, server)]
        outcome = {"unknown": "error", "fail": "failure"}.get(server["verdict"], "failure" if own else None)
        lines = [reason["message"] for reason in server.get("reasons") or []] + [sentence(issue) for issue in own]
        cases.append(_case(server.get("account") or "-", server.get("name") or "-", outcome, lines, counts))
    # Limits on the sum, and trouble that is no server's, have a case of their own.
    outcome = {"pass": None, "fail": "failure"}.get(verdict["verdict"], "error")
    lines = [reason["message"] for reason in verdict["reasons"]]
    omitted = not_listed(verdict)
    lines += [] if omitted is None else [omitted]
    cases.append(_case("gate", "verdict", outcome, lines, counts))
    totals = " ".join('{0}="{1}"'.format(name, count) for name, count in counts.items())
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<testsuites {0}>\n<testsuite name="patrolserver.gate" {0}>\n{1}</testsuite>\n</testsuites>\n'.format(
            totals, "".join(cases)
        )
    )


def as_sarif(verdict: dict) -> str:
    """Return SARIF 2.1.0: a result for each issue that breaks a limit, and a notification for each other reason.

    Issues that a waiver covers are results, too, which say that they are suppressed, why and up to when.
    """
    issues = violating(verdict)
    over = {issue["fingerprint"] for issue in issues}
    waived = [issue for issue in verdict["waived"] if issue["fingerprint"] not in over]
    rules = sorted({(issue["kind"], issue["severity"]) for issue in issues + waived})
    run = {
        "tool": {
            "driver": {
                "name": "patrolserver.monitoring.gate",
                "rules": [
                    {
                        "id": _rule(kind, severity),
                        "shortDescription": {"text": "{0} software, severity {1}".format(kind, severity)},
                        "properties": {"security-severity": SECURITY_SEVERITY.get(severity, "5.0")},
                    }
                    for kind, severity in rules
                ],
            }
        },
        "invocations": [
            {
                "executionSuccessful": verdict["verdict"] != "unknown",
                "toolExecutionNotifications": [
                    *(
                        {
                            "level": "error" if is_blocking(reason) else "note",
                            "message": {"text": reason["message"]},
                            "descriptor": {"id": reason["code"]},
                        }
                        for reason in verdict["reasons"]
                    ),
                    *(
                        {"level": "note", "message": {"text": text}, "descriptor": {"id": "not_listed"}}
                        for text in [not_listed(verdict)]
                        if text is not None
                    ),
                ],
            }
        ],
        # With suppressions in some results, those without have to say that they have none.
        "results": [
            *({**_result(issue), "suppressions": []} for issue in issues),
            *({**_result(issue), "suppressions": [_suppression(waiver)]} for issue in waived for waiver in waivers_on(issue)[:1]),
        ],
    }
    report = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(report, indent=2, sort_keys=True) + "\n"


def violating(verdict: dict) -> list:
    """Return the issues that break a limit, each once, in the order of the limits."""
    found = {}
    for violation in verdict["violations"]:
        for issue in violation.get("issues") or []:
            found.setdefault(issue["fingerprint"], issue)
    return list(found.values())


def waivers_on(issue: dict) -> list:
    """Return the waivers that cover an issue or its exploits, each once; one without words if none is told."""
    found = [issue.get("waiver"), *(one.get("waiver") for one in issue.get("exploits") or [])]
    told = {(one.get("until"), one.get("reason")): one for one in found if isinstance(one, dict)}
    return list(told.values()) or [{"until": None, "reason": None}]


def sentence(issue: dict) -> str:
    """Return an issue in one line."""
    # An issue of the server itself names no software.
    what = issue["software"] or issue.get("title") or "the server"
    version = issue.get("version") or ("(version unknown)" if issue["software"] else "")
    text = "{0}: {1} is {2}".format(issue["severity"], "{0} {1}".format(what, version).rstrip(), issue["kind"])
    if issue.get("location") not in (None, "", "/"):
        text += " at " + issue["location"]
    if issue.get("update_to"):
        text += ", update to " + issue["update_to"]
    if issue.get("risk") is not None:
        text += ", risk {0:g}".format(issue["risk"])
    exploits = issue.get("exploits") or []
    counting = [one for one in exploits if not one.get("waived")] or exploits
    if counting:
        more = len(counting) - NAMED_EXPLOITS
        named = [_exploit(one) for one in counting[:NAMED_EXPLOITS]] + (["{0} more".format(more)] if more > 0 else [])
        text += " ({0})".format(", ".join(named))
    since = issue.get("severity_since")
    # It leaves waivers aside, so that it is the severity's own only where no exploit is waived.
    if since and since != issue.get("first_seen") and len(counting) == len(exploits):
        text += ", {0} since {1}".format(issue["severity"], since)
    return text


def _exploit(exploit: dict) -> str:
    name = exploit.get("cve") or exploit.get("id") or exploit.get("title") or "an exploit without a name"
    return str(name) if exploit.get("risk") is not None else "{0} of unknown risk".format(name)


def _case(group: str, name: str, outcome: str | None, lines: list, counts: dict) -> str:
    """Return a test case, and count it; ``outcome`` is ``failure``, ``error`` or nothing."""
    counts["tests"] += 1
    head = "<testcase classname={0} name={1}>".format(quoteattr(_clean(group)), quoteattr(_clean(name)))
    text = _clean("\n".join(lines))
    if outcome is None:
        output = "<system-out>{0}</system-out>".format(escape(text)) if text else ""
        return head + output + "</testcase>\n"
    counts[outcome + "s"] += 1
    body = "<{0} message={1}>{2}</{0}>".format(outcome, quoteattr(text.partition("\n")[0]), escape(text))
    return head + body + "</testcase>\n"


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _of_server(issue: dict, server: dict) -> bool:
    return issue.get("account") == server.get("account") and issue.get("server_id") == server.get("id")


def _rule(kind: str, severity: str) -> str:
    return "patrolserver/{0}-{1}".format(kind, severity)


def _suppression(waiver: dict) -> dict:
    text = waiver.get("reason") or "accepted by a waiver"
    until = " (until {0})".format(waiver["until"]) if waiver.get("until") else ""
    return {"kind": "external", "status": "accepted", "justification": text + until}


def _result(issue: dict) -> dict:
    logical = "/".join(str(issue.get(name) or "-") for name in ("account", "server", "canonical_name"))
    return {
        "ruleId": _rule(issue["kind"], issue["severity"]),
        "level": LEVELS.get(issue["severity"], "warning"),
        "message": {"text": "{0}: {1}".format(issue.get("server"), sentence(issue))},
        "partialFingerprints": {"patrolserver/v1": issue["fingerprint"]},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": logical, "kind": "module"}]}],
    }
