"""The gate's answer for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.commands.gate_report.reply import printable
from patrolserver_exporter.issues.doubts import spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from patrolserver_exporter.commands.gate_report.reply import Issue, Reply

_COUNTS = ("critical", "high", "medium", "low", "waived", "baseline")


def render(reply: Reply) -> str:
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
                *(str(getattr(server.counts, name)) for name in _COUNTS),
                "-" if server.data_age_seconds is None else spoken(server.data_age_seconds),
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
