"""The gate's answer as SARIF 2.1.0: violations and waived issues as results, doubts as notifications."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from patrolserver_exporter import __version__
from patrolserver_exporter.commands.gate_report.reply import UNKNOWN

if TYPE_CHECKING:
    from patrolserver_exporter.commands.gate_report.reply import Issue, Reason, Reply

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = {
    "exploitable": "Known exploits exist for this software",
    "unsupported": "This version gets no fixes any more",
    "outdated": "A newer bug-fix release exists",
    "reported": "PatrolServer reported an issue that no poll has shown yet",
}
_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}


def render(reply: Reply) -> str:
    """The answer as a log with one run."""
    over: dict[tuple[str, str], tuple[Issue, list[str]]] = {}
    for violation in reply.violations:
        for issue in violation.issues:
            over.setdefault((issue.account, issue.fingerprint), (issue, []))[1].append(violation.limit)
    kinds = {issue.kind for issue, _ in over.values()} | {issue.kind for issue in reply.waived}
    run = {
        "tool": {
            "driver": {
                "name": "patrolserver-exporter",
                "version": __version__,
                "rules": [_rule(kind) for kind in sorted(kinds)],
            }
        },
        "invocations": [
            {
                "executionSuccessful": reply.verdict != UNKNOWN,
                "toolExecutionNotifications": [_notification(reason) for reason in reply.reasons],
            }
        ],
        "results": [
            *(_result(issue, limits) for issue, limits in over.values()),
            *(_waived(issue) for issue in reply.waived),
        ],
        "columnKind": "unicodeCodePoints",
        "properties": {"verdict": reply.verdict, "judgedAt": reply.judged_at},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(kind: str) -> dict[str, Any]:
    return {"id": kind, "shortDescription": {"text": _RULES.get(kind, kind)}}


def _notification(reason: Reason) -> dict[str, Any]:
    return {
        "descriptor": {"id": reason.code},
        "level": "error" if reason.blocking else "note",
        "message": {"text": reason.message},
    }


def _result(issue: Issue, limits: list[str]) -> dict[str, Any]:
    server = {"name": issue.server, "fullyQualifiedName": f"{issue.account}/{issue.server}", "kind": "resource"}
    return {
        "ruleId": issue.kind,
        "level": _LEVELS.get(issue.severity, "warning"),
        "message": {"text": f"{issue.server}: {issue.wording}."},
        "locations": [
            {
                # Code scanning shows only what has a file.
                "physicalLocation": {"artifactLocation": {"uri": f"servers/{quote(issue.server, safe='')}"}},
                "logicalLocations": [server],
            }
        ],
        "partialFingerprints": {"patrolserverIssue/v1": issue.fingerprint},
        "properties": {"severity": issue.severity, "limits": limits},
    }


def _waived(issue: Issue) -> dict[str, Any]:
    result = _result(issue, [])
    justification = f"until {issue.waiver.until}: {issue.waiver.reason}" if issue.waiver else "waived"
    suppression = {"kind": "external", "status": "accepted", "justification": justification}
    return result | {"suppressions": [suppression]}
