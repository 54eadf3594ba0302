"""The gate's answer as a table, JUnit or SARIF."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import msgspec

from patrolserver_exporter import __version__
from patrolserver_exporter.gate.judge import spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that led to the verdict, or is worth knowing."""

    code: str
    message: str
    blocking: bool = True
    account: str | None = None
    server: str | None = None


class IssueWaiver(msgspec.Struct, frozen=True, kw_only=True):
    """The waiver that covers an issue."""

    until: str
    reason: str


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """An issue."""

    fingerprint: str
    account: str
    server: str
    kind: str
    severity: str
    software: str
    canonical_name: str
    version: str | None = None
    update_to: str | None = None
    location: str | None = None
    title: str | None = None
    risk: float | None = None
    waiver: IssueWaiver | None = None

    @property
    def wording(self) -> str:
        """What is wrong, in a line."""
        software = self.software if self.version is None else f"{self.software} {self.version}"
        risk = "" if self.risk is None else f" (risk {self.risk:g})"
        update = "" if self.update_to is None else f"; update to {self.update_to}"
        where = "" if self.location is None else f" in {self.location}"
        return f"{software}{where} is {self.kind}{risk}{update}"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Open issues."""

    critical: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0
    total: int = 0
    waived: int = 0
    baseline: int = 0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server's part."""

    name: str
    verdict: str
    account: str | None = None
    counts: Counts | None = None
    """``None`` while nobody knows what there is to count."""
    data_age_seconds: float | None = None
    reasons: tuple[Reason, ...] = ()


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that is exceeded."""

    limit: str
    allowed: float
    found: int
    issues: tuple[Issue, ...] = ()


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """A waiver."""

    server: str
    software: str
    until: str
    reason: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict."""

    verdict: str
    passed: bool
    judged_at: str = ""
    reasons: tuple[Reason, ...] = ()
    counts: Counts = Counts()
    servers: tuple[Server, ...] = ()
    violations: tuple[Violation, ...] = ()
    waived: tuple[Issue, ...] = ()
    expired_waivers: tuple[Waiver, ...] = ()
    unused_waivers: tuple[Waiver, ...] = ()


class NoVerdict(Exception):
    """The answer is none that a gate gives."""


def read(data: Any) -> Reply:
    """The answer; raises `NoVerdict` when it is not one, or contradicts itself."""
    try:
        reply = msgspec.convert(data, Reply)
    except msgspec.ValidationError as error:
        raise NoVerdict(f"The exporter's answer holds no verdict ({error}).") from None
    if reply.verdict not in {PASS, FAIL, UNKNOWN} or reply.passed is not (reply.verdict == PASS):
        raise NoVerdict("The exporter's answer contradicts itself on whether the gate passed.")
    if reply.passed and (not reply.servers or any(server.verdict != PASS for server in reply.servers)):
        raise NoVerdict("The exporter's answer passes although not every server does.")
    return reply


def unanswered(code: str, message: str, judged_at: str) -> dict[str, Any]:
    """What to report when there is no answer: unknown, for this reason."""
    counts: dict[str, Any] = dict.fromkeys(Counts.__struct_fields__, 0)
    counts["by_kind"] = dict.fromkeys(("unsupported", "outdated", "exploitable", "reported"), 0)
    return {
        "verdict": UNKNOWN,
        "passed": False,
        "judged_at": judged_at,
        "reasons": [reason(code, message)],
        "counts": counts,
        "servers": [],
        "violations": [],
        "waived": [],
        "expired_waivers": [],
        "unused_waivers": [],
        "data_age_seconds": None,
    }


def with_doubt(data: dict[str, Any], code: str, message: str) -> dict[str, Any]:
    """The answer with one more reason that keeps it from passing."""
    doubted = {**data, "reasons": [*data["reasons"], reason(code, message)]}
    return doubted | {"verdict": UNKNOWN, "passed": False} if data["passed"] else doubted


def reason(code: str, message: str) -> dict[str, Any]:
    """A reason of the command itself."""
    return {"code": code, "message": message, "blocking": True, "account": None, "server_id": None, "server": None}


def printable(text: str) -> str:
    """The text without what would move a terminal's cursor or break a line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


_NOBODY_KNOWS = "–"
_COUNTS = ("critical", "high", "medium", "low", "waived", "baseline")


def as_table(reply: Reply) -> str:
    """The answer as text: the verdict first, then why, then each server."""
    lines = [f"gate: {reply.verdict}"]
    lines += _section("because", (reason.message for reason in reply.reasons if reason.blocking))
    lines += _section("good to know", (reason.message for reason in reply.reasons if not reason.blocking))
    if reply.servers:
        head = ("server", "account", "verdict", *_COUNTS, "data age")
        rows = [
            (
                server.name,
                server.account or "-",
                server.verdict,
                *(_NOBODY_KNOWS if server.counts is None else str(getattr(server.counts, name)) for name in _COUNTS),
                _NOBODY_KNOWS if server.data_age_seconds is None else spoken(server.data_age_seconds),
            )
            for server in reply.servers
        ]
        lines += ["", *table([head, *rows])]
    for violation in reply.violations:
        title = f"{violation.limit}: {violation.found} found, {violation.allowed:g} allowed"
        lines += _section(title, _issues(violation.issues))
    lines += _section(
        "waived",
        (
            f"{one} (until {issue.waiver.until}: {issue.waiver.reason})" if issue.waiver else one
            for issue, one in zip(reply.waived, _issues(reply.waived), strict=True)
        ),
    )
    return "\n".join(printable(line) for line in lines) + "\n"


def _section(title: str, entries: Iterable[str]) -> list[str]:
    found = [f"  {entry}" for entry in entries]
    return ["", f"{title}:", *found] if found else []


def _issues(issues: Iterable[Issue]) -> Iterator[str]:
    return (f"{issue.severity:<8} {issue.server}: {issue.wording} [{issue.fingerprint}]" for issue in issues)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns that are as wide as they need to be; the first row is the head."""
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in clean) for column in range(len(clean[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean]


_SUITE = "patrolserver gate"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(reply: Reply) -> str:
    """The answer as a document; a failure or an error in it whenever the verdict is not pass."""
    cases = [_case(_SUITE, "verdict", reply.verdict, _lines_of_verdict(reply))]
    cases += [
        _case(f"{_SUITE}.{server.account or 'unknown'}", server.name, server.verdict, _lines_of_server(reply, server))
        for server in reply.servers
    ]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
    }
    attributes = {name: str(count) for name, count in counts.items()}
    root = ET.Element("testsuites", {"name": _SUITE, **attributes, "time": "0"})
    suite = ET.SubElement(root, "testsuite", {"name": _SUITE, **attributes, "skipped": "0", "time": "0"})
    if reply.judged_at:
        # The schema knows neither fractions nor a zone.
        suite.set("timestamp", _clean(reply.judged_at[:19]))
    suite.extend(cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _case(suite: str, name: str, verdict: str, lines: Sequence[str]) -> ET.Element:
    case = ET.Element("testcase", {"classname": _clean(suite), "name": _clean(name), "time": "0"})
    if verdict != PASS:
        message = lines[0] if lines else f"The verdict is {verdict}."
        tag = "failure" if verdict == FAIL else "error"
        ET.SubElement(case, tag, {"message": _clean(message), "type": _clean(verdict)}).text = _clean("\n".join(lines))
    elif lines:
        ET.SubElement(case, "system-out").text = _clean("\n".join(lines))
    return case


def _lines_of_verdict(reply: Reply) -> list[str]:
    reasons = sorted(reply.reasons, key=lambda reason: not reason.blocking)
    return [reason.message for reason in reasons]


def _lines_of_server(reply: Reply, server: Server) -> list[str]:
    issues = {
        issue.fingerprint: f"{issue.severity}: {issue.wording} [{issue.fingerprint}]"
        for violation in reply.violations
        for issue in violation.issues
        if (issue.account, issue.server) == (server.account, server.name)
    }
    return [*(reason.message for reason in server.reasons), *issues.values()]


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)


SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = {
    "exploitable": "Known exploits exist for this software",
    "unsupported": "This version gets no fixes any more",
    "outdated": "A newer bug-fix release exists",
    "reported": "PatrolServer reported an issue that no poll has shown yet",
}
_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}


def as_sarif(reply: Reply) -> str:
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
