"""The deploy gate: whether what is known of a selection of servers meets a policy.

It fails closed. Old, missing or partial data is never a ground to pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.issues.doubts import doubt_of_unknown, doubts
from patrolserver_exporter.issues.evidence import Evidence, ServerEvidence, UnknownServer
from patrolserver_exporter.issues.limits import Limit, broken, limits_of
from patrolserver_exporter.issues.model import SEVERITIES, Issue, Kind
from patrolserver_exporter.issues.policy import KindLimits, Policy, SeverityLimits
from patrolserver_exporter.issues.verdict import (
    Counts,
    JudgedIssue,
    Judgement,
    KindCounts,
    Reason,
    ReasonCode,
    ServerJudgement,
    SeverityCounts,
    Verdict,
)
from patrolserver_exporter.issues.waive import day_of, expired, unused, waiver_for

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

__all__ = [
    "Evidence",
    "Judgement",
    "KindLimits",
    "Policy",
    "ServerEvidence",
    "SeverityLimits",
    "UnknownServer",
    "Verdict",
    "judge",
]


class _Sorted(msgspec.Struct, frozen=True, kw_only=True):
    """One server's open issues, by whether they count."""

    evidence: ServerEvidence
    reasons: tuple[Reason, ...]
    counted: tuple[Issue, ...]
    waived: tuple[Issue, ...]
    baseline: tuple[Issue, ...]

    @property
    def doubted(self) -> bool:
        return any(reason.blocking for reason in self.reasons)


def judge(selection: Iterable[Evidence], policy: Policy, now: float) -> Judgement:
    """The verdict on the selected servers, whatever their order; one that is selected twice counts once.

    ``FAIL`` if the issues of the servers beyond doubt break a limit, else ``UNKNOWN`` if a server is in doubt or
    there is none, else ``PASS``. ``now`` is in seconds since the epoch.
    """
    asked = tuple(dict.fromkeys(selection))
    today = day_of(now)
    servers = tuple(
        _sort(evidence, policy, now, today)
        for evidence in sorted((e for e in asked if isinstance(e, ServerEvidence)), key=_place)
    )
    unknown = tuple(sorted((e for e in asked if isinstance(e, UnknownServer)), key=str))
    limits = limits_of(policy)
    over = broken(limits, _counted(servers))
    over_without_doubt = broken(limits, _counted(server for server in servers if not server.doubted))
    doubted = not asked or bool(unknown) or any(server.doubted for server in servers)
    judged = (*(_judge_server(server, over, now) for server in servers), *(_judge_unknown(one) for one in unknown))
    old = expired(policy.waivers, today)
    idle = unused(policy.waivers, [(s.evidence.name, issue) for s in servers for issue in s.evidence.issues], today)
    return Judgement(
        verdict=_verdict(fails=bool(over_without_doubt), doubted=doubted),
        servers=judged,
        counts=_counts(servers),
        violations=_violations(servers, over),
        waived=tuple(JudgedIssue(server=s.evidence.name, issue=issue) for s in servers for issue in s.waived),
        expired_waivers=old,
        unused_waivers=idle,
        reasons=(
            *_reasons_of_limits(over),
            *_reasons_of_selection(asked),
            *(reason for server in judged for reason in server.reasons),
            *(_reason_of_waiver(ReasonCode.WAIVER_EXPIRED, w.server, w.software, f"ended on {w.until}") for w in old),
            *(_reason_of_waiver(ReasonCode.WAIVER_UNUSED, w.server, w.software, "covers nothing") for w in idle),
        ),
    )


def _verdict(*, fails: bool, doubted: bool) -> Verdict:
    if fails:
        return Verdict.FAIL
    return Verdict.UNKNOWN if doubted else Verdict.PASS


def _place(evidence: ServerEvidence) -> tuple[str, str, int, str]:
    return evidence.account, evidence.name, evidence.server_id, str(evidence)


def _sort(evidence: ServerEvidence, policy: Policy, now: float, today: dt.date) -> _Sorted:
    counted: list[Issue] = []
    waived: list[Issue] = []
    baseline: list[Issue] = []
    for issue in sorted((i for i in evidence.issues if i.is_open), key=_badness):
        waiver = waiver_for(issue, evidence.name, policy.waivers, today)
        if waiver is not None:
            waived.append(replace(issue, waived_until=waiver.until, waived_reason=waiver.reason))
        elif issue.waived_until is not None and issue.waived_until >= today:
            waived.append(issue)
        elif issue.fingerprint in policy.baseline:
            baseline.append(issue)
        else:
            counted.append(issue)
    return _Sorted(
        evidence=evidence,
        reasons=doubts(evidence, policy, now),
        counted=tuple(counted),
        waived=tuple(waived),
        baseline=tuple(baseline),
    )


def _badness(issue: Issue) -> tuple[int, float, tuple[str, str, bool, bool], str]:
    return SEVERITIES.index(issue.severity), -(issue.risk or 0.0), issue.identity.order, issue.fingerprint


def _counted(servers: Iterable[_Sorted]) -> tuple[Issue, ...]:
    return tuple(issue for server in servers for issue in server.counted)


def _counts(servers: Sequence[_Sorted]) -> Counts:
    counted = _counted(servers)
    return Counts(
        total=len(counted),
        by_severity=SeverityCounts(
            **{severity.value: sum(issue.severity is severity for issue in counted) for severity in SEVERITIES}
        ),
        by_kind=KindCounts(**{kind.value: sum(issue.kind is kind for issue in counted) for kind in Kind}),
        waived=sum(len(server.waived) for server in servers),
        baseline=sum(len(server.baseline) for server in servers),
    )


def _judge_server(server: _Sorted, over: Sequence[tuple[Limit, int]], now: float) -> ServerJudgement:
    evidence = server.evidence
    fails = any(limit.counts(issue) for limit, _ in over for issue in server.counted)
    return ServerJudgement(
        account=evidence.account,
        server_id=evidence.server_id,
        server=evidence.name,
        verdict=Verdict.UNKNOWN if server.doubted else _verdict(fails=fails, doubted=False),
        data_age_seconds=None if evidence.last_poll_at is None else now - evidence.last_poll_at,
        scan_age_seconds=None if evidence.last_scan_at is None else now - evidence.last_scan_at,
        counts=_counts([server]),
        reasons=server.reasons,
    )


def _judge_unknown(unknown: UnknownServer) -> ServerJudgement:
    return ServerJudgement(
        account=unknown.account,
        server_id=None,
        server=unknown.selector,
        verdict=Verdict.UNKNOWN,
        reasons=(doubt_of_unknown(unknown),),
    )


def _violations(servers: Iterable[_Sorted], over: Sequence[tuple[Limit, int]]) -> tuple[JudgedIssue, ...]:
    judged = (
        JudgedIssue(
            server=server.evidence.name,
            issue=issue,
            limits=tuple(limit.name for limit, _ in over if limit.counts(issue)),
        )
        for server in servers
        for issue in server.counted
    )
    return tuple(one for one in judged if one.limits)


def _reasons_of_limits(over: Iterable[tuple[Limit, int]]) -> Iterable[Reason]:
    for limit, count in over:
        yield Reason(
            code=ReasonCode.LIMIT_EXCEEDED,
            message=f"Open issues that {limit.wording}: {count}, and {limit.name} allows "
            f"{limit.allowed}; fix them, waive them, or raise the limit.",
            blocking=True,
        )


def _reasons_of_selection(asked: Sequence[Evidence]) -> Iterable[Reason]:
    if not asked:
        message = "No server was asked for, so nothing is known to be fine; name at least one server."
        yield Reason(code=ReasonCode.EMPTY_SELECTION, message=message, blocking=True)


def _reason_of_waiver(code: ReasonCode, server: str, software: str, what: str) -> Reason:
    message = f"The policy's waiver for {software} on {server} {what}; renew it or take it out."
    return Reason(code=code, message=message, blocking=False)
