"""From a judgement to what the gate answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.gate.policy import limits_of
from patrolserver_exporter.gate.verdict import Counts, Judgement, Reason, Verdict
from patrolserver_exporter.web.api import conversion, gate_types, types

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patrolserver_exporter.gate.policy import Policy
    from patrolserver_exporter.gate.verdict import JudgedIssue, ServerJudgement
    from patrolserver_exporter.issues.model import Waiver


def reply_of(judgement: Judgement, policy: Policy, now: float, lapsed: Iterable[Waiver] = ()) -> gate_types.GateReply:
    """The answer; ``lapsed`` are waivers of the configuration that ran out and whose issues count again."""
    ages = [server.data_age_seconds for server in judgement.servers if server.data_age_seconds is not None]
    return gate_types.GateReply(
        verdict=judgement.verdict,
        passed=judgement.verdict is Verdict.PASS,
        judged_at=conversion.time_of(now),
        reasons=tuple(map(_reason, judgement.reasons)),
        counts=_counts(judgement.counts),
        servers=tuple(map(_server, judgement.servers)),
        violations=tuple(_violations(judgement.violations, policy)),
        waived=_issues(judgement.waived),
        expired_waivers=tuple(map(_waiver, dict.fromkeys((*judgement.expired_waivers, *lapsed)))),
        unused_waivers=tuple(map(_waiver, judgement.unused_waivers)),
        data_age_seconds=max(ages, default=None),
    )


def _reason(reason: Reason) -> gate_types.Reason:
    return gate_types.Reason(
        code=reason.code,
        message=reason.message,
        blocking=reason.blocking,
        account=reason.account,
        server_id=reason.server_id,
        server=reason.server,
    )


def _counts(counts: Counts) -> gate_types.GateCounts:
    return gate_types.GateCounts(
        critical=counts.by_severity.critical,
        high=counts.by_severity.high,
        medium=counts.by_severity.medium,
        low=counts.by_severity.low,
        total=counts.total,
        waived=counts.waived,
        baseline=counts.baseline,
        by_kind=counts.by_kind,
    )


def _server(judged: ServerJudgement) -> gate_types.JudgedServer:
    return gate_types.JudgedServer(
        account=judged.account,
        id=judged.server_id,
        name=judged.server,
        verdict=judged.verdict,
        data_age_seconds=judged.data_age_seconds,
        scan_age_seconds=judged.scan_age_seconds,
        counts=_counts(judged.counts),
        reasons=tuple(map(_reason, judged.reasons)),
    )


def _violations(judged: Iterable[JudgedIssue], policy: Policy) -> Iterable[gate_types.Violation]:
    judged = tuple(judged)
    for limit in limits_of(policy):
        over = [one for one in judged if limit.name in one.limits]
        if over:
            yield gate_types.Violation(limit=limit.name, allowed=limit.allowed, found=len(over), issues=_issues(over))


def _issues(judged: Iterable[JudgedIssue]) -> tuple[types.Issue, ...]:
    return tuple(conversion.issue(one.issue, one.server) for one in judged)


def _waiver(waiver: Waiver) -> gate_types.Waiver:
    return gate_types.Waiver(
        server=waiver.server, software=waiver.software, kind=waiver.kind, until=waiver.until, reason=waiver.reason
    )
