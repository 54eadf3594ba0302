"""The gate's answer as a table, JUnit or SARIF."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from patrolserver_exporter import __version__
from patrolserver_exporter.commands import documents
from patrolserver_exporter.gate.telling import spoken
from patrolserver_exporter.globs import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"


@dataclass(frozen=True)
class Reason:
    """One thing that led to the verdict, or is worth knowing."""

    code: str
    message: str
    blocking: bool = True
    account: str | None = None
    server: str | None = None


@dataclass(frozen=True)
class IssueWaiver:
    """The waiver that covers an issue."""

    until: str
    reason: str


@dataclass(frozen=True)
class Issue:
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


@dataclass(frozen=True)
class Counts:
    """Open issues."""

    critical: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0
    total: int = 0
    waived: int = 0
    baseline: int = 0
    unfixable: int = 0


@dataclass(frozen=True)
class ServersByVerdict:
    """All servers that were judged, listed or not."""

    passing: int = field(metadata={"name": "pass"})
    fail: int
    unknown: int


@dataclass(frozen=True)
class Server:
    """One server's part."""

    name: str
    verdict: str
    account: str | None = None
    id: int | None = None
    counts: Counts | None = None
    """``None`` while nobody knows what there is to count."""
    data_age_seconds: float | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Violation:
    """A limit that is exceeded."""

    limit: str
    allowed: float
    found: int
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class Waiver:
    """A waiver."""

    server: str
    software: str
    until: str
    reason: str


@dataclass(frozen=True)
class Reply:
    """The verdict. What a list leaves out is counted in its ``…_not_listed``."""

    verdict: str
    passed: bool
    servers_by_verdict: ServersByVerdict = ServersByVerdict(passing=0, fail=0, unknown=0)
    judged_at: str = ""
    policy: str | None = None
    reasons: tuple[Reason, ...] = ()
    reasons_not_listed: int = 0
    counts: Counts | None = None
    servers: tuple[Server, ...] = ()
    servers_not_listed: int = 0
    violations: tuple[Violation, ...] = ()
    issues_not_listed: int = 0
    waived: tuple[Issue, ...] = ()
    waived_not_listed: int = 0
    expired_waivers: tuple[Waiver, ...] = ()
    unused_waivers: tuple[Waiver, ...] = ()
    expiring_waivers: tuple[Waiver, ...] = ()

    @property
    def not_listed(self) -> str | None:
        """What the answer leaves out, in a sentence; ``None`` if nothing."""
        if not (self.servers_not_listed or self.issues_not_listed or self.waived_not_listed):
            return None
        return (
            f"Not listed: {self.servers_not_listed} servers, {self.issues_not_listed} issues over a limit and "
            f"{self.waived_not_listed} waived issues; --detail=all lists them."
        )


class NoVerdict(Exception):
    """The answer is none that a gate gives."""


def read(data: Any) -> Reply:
    """The answer; raises `NoVerdict` when it is not one, or contradicts itself."""
    try:
        reply = documents.read(Reply, data)
    except documents.Misfit as error:
        raise NoVerdict(f"The exporter's answer holds no verdict ({error}).") from None
    if reply.verdict not in {PASS, FAIL, UNKNOWN} or reply.passed is not (reply.verdict == PASS):
        raise NoVerdict("The exporter's answer contradicts itself on whether the gate passed.")
    if not reply.passed:
        return reply
    judged = reply.servers_by_verdict
    # A newer version may count servers under a verdict of its own, which is no pass.
    counted = data.get("servers_by_verdict", {})
    others = any(count != 0 for name, count in counted.items() if name != PASS)
    # A list may be short, or missing: only a server that is counted has passed.
    all_pass = judged.passing == len(reply.servers) + reply.servers_not_listed and not others
    if judged.passing < 1 or not all_pass or any(server.verdict != PASS for server in reply.servers):
        raise NoVerdict("The exporter's answer passes although not every server does, or none is counted.")
    reasons = (*reply.reasons, *(reason for server in reply.servers for reason in server.reasons))
    if reply.violations or reply.issues_not_listed or any(reason.blocking for reason in reasons):
        raise NoVerdict("The exporter's answer passes although it contradicts that with what it lists.")
    return reply


_SIGNS_OF_A_GLOB = frozenset("*?[")
_STORED = 15 * 60.0
"""Seconds by which the clocks of the exporter and of this machine may differ; an older answer is a stored one."""


def check(
    reply: Reply, servers: Iterable[str], account: str | None, policy: str | None, *, asked_at: float | None = None
) -> None:
    """Raise `NoVerdict` where a pass is not the answer to what was asked: something between may mix answers up.

    ``asked_at``: when the exporter was asked, in seconds since the epoch by this machine's clock.
    """
    if not reply.passed:
        return
    judged_at = _moment(reply.judged_at)
    if asked_at is not None and reply.judged_at and (judged_at is None or judged_at < asked_at - _STORED):
        raise NoVerdict(
            f"The exporter's answer is of {cut(printable(reply.judged_at), 40)}, and not of now: something between "
            "keeps answers, or the clock of the exporter or of this machine is wrong."
        )
    if policy is not None and reply.policy != policy:
        raise NoVerdict(f"The exporter's answer is by the policy {reply.policy}, and not by {policy}.")
    if account is not None and any(one.account != account for one in reply.servers):
        raise NoVerdict(f"The exporter's answer is about servers of another account than {account}.")
    servers = tuple(servers)
    for one in reply.servers:
        if not any(_is_meant(one, asked) for asked in servers):
            raise NoVerdict(f"The exporter's answer is about {cut(printable(one.name), 80)}, which was not asked for.")
    if reply.servers_not_listed:
        return
    for asked in servers:
        if not any(_is_meant(one, asked) for one in reply.servers):
            raise NoVerdict(f"The exporter's answer passes without saying anything of {asked}.")


def _is_meant(server: Server, asked: str) -> bool:
    """Whether the server may be one that was asked for, by its id, its name or a glob."""
    is_id = asked.isdecimal() and asked.lstrip("0") == str(server.id)
    return is_id or (
        asked.lower() == server.name.lower() if _SIGNS_OF_A_GLOB.isdisjoint(asked) else matches(asked, server.name)
    )


def _moment(text: str) -> float | None:
    """Seconds since the epoch, of a time in RFC 3339 with its zone; ``None`` for all else."""
    try:
        # Python 3.10 and older do not know the Z.
        moment = dt.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None


def unanswered(code: str, message: str, judged_at: str) -> dict[str, Any]:
    """What to report when there is no answer: unknown, for this reason, and nothing counted."""
    lists = ("servers", "violations", "waived", "expired_waivers", "unused_waivers", "expiring_waivers")
    return {
        "verdict": UNKNOWN,
        "passed": False,
        "judged_at": judged_at,
        "policy": None,
        "reasons": [reason(code, message)],
        "counts": None,
        "servers_by_verdict": {"pass": 0, "fail": 0, "unknown": 0},
        **{name: [] for name in lists},
        **dict.fromkeys(("reasons_not_listed", "servers_not_listed", "issues_not_listed", "waived_not_listed"), 0),
        "data_age_seconds": None,
    }


def with_doubt(data: dict[str, Any], code: str, message: str, server: str | None = None) -> dict[str, Any]:
    """The answer with one more reason that keeps it, and this server, from passing."""
    why = reason(code, message)
    doubted = {**data, "reasons": [*data["reasons"], why]}
    found = [one for one in data.get("servers", ()) if one.get("name") == server and one.get("verdict") == PASS]
    if len(found) == 1:
        changed = found[0] | {"verdict": UNKNOWN, "reasons": [*found[0].get("reasons", ()), why]}
        doubted["servers"] = [changed if one is found[0] else one for one in data["servers"]]
        counts = data["servers_by_verdict"]
        doubted["servers_by_verdict"] = counts | {PASS: counts[PASS] - 1, UNKNOWN: counts[UNKNOWN] + 1}
    return doubted | {"verdict": UNKNOWN, "passed": False} if data["passed"] else doubted


def reason(code: str, message: str) -> dict[str, Any]:
    """A reason of the command itself."""
    return {"code": code, "message": message, "blocking": True, "account": None, "server_id": None, "server": None}


def printable(text: str) -> str:
    """The text without what would move a terminal's cursor or break a line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def cut(text: str, length: int) -> str:
    """The text, and a sign that it goes on where it is longer."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


MAX_LINES = 20
"""Of a table: what fits a terminal and a mail at night."""
_NOBODY_KNOWS = "–"
_COUNTS = ("critical", "high", "medium", "low", "waived", "baseline", "unfixable")
_WORST_FIRST = (FAIL, UNKNOWN, PASS)
_SEVERITIES = ("critical", "high", "medium", "low")


@dataclass(frozen=True)
class _Section:
    """A part of the table."""

    title: str
    lines: list[str]
    rest: str
    """What the lines that are left out are."""
    more: int = 0
    """How many lines the answer itself leaves out."""
    kept_when_short: bool = True


def as_table(reply: Reply, *, whole: bool = False) -> str:
    """The answer as text: the verdict first, then why, each server and the issues over a limit, the worst first.

    It has at most 20 lines unless it is wanted as a ``whole``; what is left out is counted.
    """
    sections = [section for section in _sections(reply) if section.lines or section.more]
    lines = _lines(reply, sections)
    if len(lines) > MAX_LINES and not whole:
        lines = _short(reply, sections)
    return "\n".join(printable(line) for line in lines) + "\n"


def _lines(reply: Reply, sections: Iterable[_Section]) -> list[str]:
    lines = [f"gate: {reply.verdict}"]
    for section in sections:
        lines += ["", section.title, *section.lines]
        if section.more:
            lines.append(f"  … and {section.more} more {section.rest}")
    return lines


def _short(reply: Reply, sections: Sequence[_Section]) -> list[str]:
    """The sections that tell what to do, with as many lines of each as there is room for."""
    kept = [section for section in sections if section.kept_when_short]
    left_out = [f"{len(one.lines) + one.more} {one.rest}" for one in sections if not one.kept_when_short]
    # The verdict, a blank line, the title and what is left out of each, and at the end what is left out at all.
    room = MAX_LINES - 1 - 3 * len(kept) - 2
    shown = [0] * len(kept)
    while room and any(count < len(one.lines) for count, one in zip(shown, kept)):
        for place, one in enumerate(kept):
            if room and shown[place] < len(one.lines):
                shown[place] += 1
                room -= 1
    cut = [
        replace(one, lines=one.lines[:count], more=one.more + len(one.lines) - count) for count, one in zip(shown, kept)
    ]
    also = f"also {', '.join(left_out)}; " if left_out else ""
    return [*_lines(reply, cut), "", f"{also}--detail=all shows everything"]


def _sections(reply: Reply) -> Iterator[_Section]:
    blocking = [f"  {reason.message}" for reason in reply.reasons if reason.blocking]
    notes = [f"  {reason.message}" for reason in reply.reasons if not reason.blocking]
    # Reasons that block are listed before those that do not.
    yield _Section(title="because:", lines=blocking, more=0 if notes else reply.reasons_not_listed, rest="reasons")
    head, *rows = table([_HEAD, *map(_row, sorted(reply.servers, key=_badness))])
    yield _Section(title=head, lines=rows, more=reply.servers_not_listed, rest=_servers(reply))
    yield _Section(title="over a limit:", lines=_over(reply), more=reply.issues_not_listed, rest="issues over a limit")
    yield _Section(
        title="good to know:",
        lines=notes,
        more=reply.reasons_not_listed if notes else 0,
        rest="remarks",
        kept_when_short=False,
    )
    waived = [
        f"  {_issue(one)}" + (f" (until {one.waiver.until}: {one.waiver.reason})" if one.waiver else "")
        for one in reply.waived
    ]
    yield _Section(
        title="waived:", lines=waived, more=reply.waived_not_listed, rest="waived issues", kept_when_short=False
    )


_HEAD = ("server", "account", "verdict", *_COUNTS, "data age")


def _row(server: Server) -> tuple[str, ...]:
    return (
        server.name,
        server.account or "-",
        server.verdict,
        *(_NOBODY_KNOWS if server.counts is None else str(getattr(server.counts, name)) for name in _COUNTS),
        _NOBODY_KNOWS if server.data_age_seconds is None else spoken(server.data_age_seconds),
    )


def _badness(server: Server) -> tuple[int, ...]:
    counts = server.counts or Counts()
    place = _WORST_FIRST.index(server.verdict) if server.verdict in _WORST_FIRST else 0
    return place, *(-getattr(counts, name) for name in _SEVERITIES)


def _servers(reply: Reply) -> str:
    judged = reply.servers_by_verdict
    return f"servers (of all, {judged.fail} fail, {judged.unknown} are unknown, {judged.passing} pass)"


def _over(reply: Reply) -> list[str]:
    """Each issue over a limit once, the worst first."""
    over = sorted(_by_issue(reply).values(), key=lambda pair: (_place(pair[0].severity), -(pair[0].risk or 0.0)))
    return [f"  {_issue(issue)} ({', '.join(limits)})" for issue, limits in over]


def _by_issue(reply: Reply) -> dict[tuple[str, str], tuple[Issue, list[str]]]:
    over: dict[tuple[str, str], tuple[Issue, list[str]]] = {}
    for violation in reply.violations:
        for issue in violation.issues:
            over.setdefault((issue.account, issue.fingerprint), (issue, []))[1].append(violation.limit)
    return over


def _place(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else 0


def _issue(issue: Issue) -> str:
    return f"{issue.severity:<8} {issue.server}: {issue.wording} [{issue.fingerprint}]"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns that are as wide as they need to be; the first row is the head."""
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in clean) for column in range(len(clean[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in clean]


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
    omitted = [] if reply.not_listed is None else [reply.not_listed]
    return [*(reason.message for reason in reasons), *omitted]


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
_SECURITY_SEVERITY = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}
"""What code scanning sorts by, from 0 to 10: the middle of each severity's own range there."""
_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}


def as_sarif(reply: Reply) -> str:
    """The answer as a log with one run."""
    over = _by_issue(reply)
    rules = {(issue.kind, issue.severity) for issue in (*(issue for issue, _ in over.values()), *reply.waived)}
    run = {
        "tool": {
            "driver": {
                "name": "patrolserver-exporter",
                "version": __version__,
                "rules": [_rule(kind, severity) for kind, severity in sorted(rules)],
            }
        },
        "invocations": [
            {
                "executionSuccessful": reply.verdict != UNKNOWN,
                "toolExecutionNotifications": [*map(_notification, reply.reasons), *_notification_of_omitted(reply)],
            }
        ],
        "results": [
            *(_result(issue, limits) for issue, limits in over.values()),
            *(_waived(issue) for issue in reply.waived),
        ],
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": reply.verdict,
            "judgedAt": reply.judged_at,
            "serversNotListed": reply.servers_not_listed,
            "issuesNotListed": reply.issues_not_listed,
            "waivedNotListed": reply.waived_not_listed,
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(kind: str, severity: str) -> dict[str, Any]:
    """A rule for each severity of a kind: code scanning takes a result's severity from its rule."""
    return {
        "id": _rule_id(kind, severity),
        "shortDescription": {"text": f"{_RULES.get(kind, kind)} ({severity})"},
        "defaultConfiguration": {"level": _LEVELS.get(severity, "warning")},
        "properties": {"security-severity": _security_severity(severity), "tags": ["security", kind]},
    }


def _rule_id(kind: str, severity: str) -> str:
    return f"{kind}/{severity}"


def _security_severity(severity: str) -> str:
    # One that this version does not know counts as the worst.
    return _SECURITY_SEVERITY.get(severity, _SECURITY_SEVERITY["critical"])


def _notification(reason: Reason) -> dict[str, Any]:
    return {
        "descriptor": {"id": reason.code},
        "level": "error" if reason.blocking else "note",
        "message": {"text": reason.message},
    }


def _notification_of_omitted(reply: Reply) -> list[dict[str, Any]]:
    if reply.not_listed is None:
        return []
    return [{"descriptor": {"id": "not_listed"}, "level": "note", "message": {"text": reply.not_listed}}]


def _result(issue: Issue, limits: list[str]) -> dict[str, Any]:
    server = {"name": issue.server, "fullyQualifiedName": f"{issue.account}/{issue.server}", "kind": "resource"}
    return {
        "ruleId": _rule_id(issue.kind, issue.severity),
        "level": _LEVELS.get(issue.severity, "warning"),
        "message": {"text": f"{issue.server}: {issue.wording}."},
        "locations": [
            {
                # Code scanning shows only what has a file and a line in it.
                "physicalLocation": {
                    "artifactLocation": {"uri": f"servers/{quote(issue.server, safe='')}"},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [server],
            }
        ],
        "partialFingerprints": {"patrolserverIssue/v1": issue.fingerprint},
        "properties": {
            "kind": issue.kind,
            "severity": issue.severity,
            "security-severity": _security_severity(issue.severity) if issue.risk is None else f"{issue.risk:.1f}",
            "limits": limits,
        },
    }


def _waived(issue: Issue) -> dict[str, Any]:
    result = _result(issue, [])
    justification = f"until {issue.waiver.until}: {issue.waiver.reason}" if issue.waiver else "waived"
    suppression = {"kind": "external", "status": "accepted", "justification": justification}
    return result | {"suppressions": [suppression]}
