"""How much of a verdict an answer lists. What it leaves out it counts, so that a short list is never taken for all."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.gate.verdict import Counts, Verdict

if TYPE_CHECKING:
    from patrolserver_exporter.gate.verdict import Judgement, ServerJudgement

LISTED_WHOLE = 500
"""Servers up to which everything is listed unless it is asked for otherwise."""
MAX_LISTED = 1_000
"""Entries of a list of problems."""

_ORDER = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS)


class Detail(StrEnum):
    """What an answer lists."""

    PROBLEMS = "problems"
    """What does not pass, the worst first, up to 1,000 of each list."""
    ALL = "all"


class Omitted(msgspec.Struct, frozen=True, kw_only=True):
    """How many an answer does not list."""

    servers: int = 0
    issues: int = 0
    """Over a limit; each once, however many limits it breaks."""
    waived: int = 0
    reasons: int = 0


def listed(judgement: Judgement, asked: Detail | None) -> tuple[Judgement, Omitted]:
    """The verdict with what is to be listed of it; ``None``: everything, unless it is about many servers."""
    many = len(judgement.servers) > LISTED_WHOLE
    if asked is Detail.ALL or (asked is None and not many):
        return judgement, Omitted()
    problems = [server for server in judgement.servers if server.verdict is not Verdict.PASS]
    servers = sorted(problems, key=_badness)[:MAX_LISTED]
    reasons = sorted(judgement.reasons, key=lambda reason: not reason.blocking)[:MAX_LISTED]
    violations = judgement.violations[:MAX_LISTED]
    shown = replace(judgement, servers=tuple(servers), reasons=tuple(reasons), violations=violations, waived=())
    return shown, Omitted(
        servers=len(judgement.servers) - len(servers),
        issues=len(judgement.violations) - len(violations),
        waived=len(judgement.waived),
        reasons=len(judgement.reasons) - len(reasons),
    )


def _badness(server: ServerJudgement) -> tuple[int, ...]:
    by_severity = (server.counts or Counts()).by_severity
    found = (by_severity.critical, by_severity.high, by_severity.medium, by_severity.low)
    return _ORDER.index(server.verdict), *(-count for count in found)
