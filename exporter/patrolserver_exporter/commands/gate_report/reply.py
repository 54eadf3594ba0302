"""The gate's answer, as far as reports need it.

Read leniently, so that a newer exporter's further codes and members do not hurt, but never more leniently on the
verdict: what does not say ``pass`` clearly is no pass.
"""

from __future__ import annotations

from typing import Any

import msgspec

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
    counts: Counts = Counts()
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
