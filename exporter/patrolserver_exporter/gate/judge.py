"""The deploy gate: whether what is known of a selection of servers meets a policy.

It fails closed. Old, missing or partial data is never a ground to pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.gate.evidence import Evidence, ServerEvidence, UnknownServer
from patrolserver_exporter.gate.policy import KindLimits, Limit, Policy, SeverityLimits, broken, limits_of
from patrolserver_exporter.gate.verdict import (
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
from patrolserver_exporter.issues.model import SEVERITIES, STATES, Issue, Kind, State
from patrolserver_exporter.issues.waive import day_of, expired, unused, waiver_for

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Sequence


CLOCK_TOLERANCE = 300.0
"""Seconds that a time may lie in the future, because clocks differ."""

_Doubt = tuple[ReasonCode, str]


def doubts(evidence: ServerEvidence, policy: Policy, now: float) -> tuple[Reason, ...]:
    """All that keeps the server's verdict ``unknown``, and then what is only worth knowing."""
    blocking = (
        *_of_poll(evidence, policy, now),
        *_of_content(evidence, policy),
        *_of_scan(evidence, policy, now),
    )
    return tuple(
        Reason(
            code=code,
            message=f"{evidence.name}: {message}",
            blocking=blocks,
            account=evidence.account,
            server_id=evidence.server_id,
            server=evidence.name,
        )
        for found, blocks in ((blocking, True), (tuple(_notes(evidence)), False))
        for code, message in found
    )


def doubt_of_unknown(unknown: UnknownServer) -> Reason:
    """Why nothing can be said of a server that cannot be told."""
    where = "" if unknown.account is None else f" in account {unknown.account}"
    if unknown.ambiguous_in:
        code = ReasonCode.AMBIGUOUS_SERVER
        message = (
            f"{unknown.selector}: {len(unknown.ambiguous_in)} accounts have such a server "
            f"({', '.join(sorted(unknown.ambiguous_in))}); say which account, or ask by id."
        )
    elif unknown.never_listed:
        code = ReasonCode.NEVER_LISTED
        message = (
            f"{unknown.selector}: the server list{where} was never read, so nobody knows what the glob means there; "
            "wait for the first list, or say which account."
        )
    else:
        code = ReasonCode.UNKNOWN_SERVER
        message = (
            f"{unknown.selector}: no such server is watched{where}; check the name, that PatrolServer has it, "
            "and the account's include and exclude lists."
        )
    return Reason(code=code, message=message, blocking=True, account=unknown.account, server=unknown.selector)


def _of_poll(evidence: ServerEvidence, policy: Policy, now: float) -> Iterator[_Doubt]:
    if evidence.account_refused:
        yield (
            ReasonCode.CREDENTIALS_REFUSED,
            f"PatrolServer refuses the credentials of account {evidence.account}; renew its key and secret.",
        )
    if evidence.last_poll_at is None or evidence.software is None:
        yield ReasonCode.NEVER_POLLED, "it was never polled with success; wait for the first poll, or refresh it."
        return
    age = now - evidence.last_poll_at
    if age < -CLOCK_TOLERANCE:
        yield (
            ReasonCode.POLL_IN_FUTURE,
            f"its last successful poll lies {spoken(-age)} in the future; check the clocks and refresh it.",
        )
    elif not age <= policy.max_age:
        yield (
            ReasonCode.DATA_TOO_OLD,
            f"its last successful poll is {spoken(age)} old, and max_age allows {spoken(policy.max_age)}; refresh it.",
        )
    if not evidence.poll_complete:
        yield (
            ReasonCode.POLL_INCOMPLETE,
            "its last successful poll had entries that could not be read; look into the log, and refresh it.",
        )


def _of_content(evidence: ServerEvidence, policy: Policy) -> Iterator[_Doubt]:
    allowed = f"max_unknown_software allows {policy.max_unknown_software}; have it scanned again, or allow more"
    unknown = 0 if evidence.software is None else evidence.software[STATES.index(State.UNKNOWN)]
    if unknown > policy.max_unknown_software:
        yield ReasonCode.SOFTWARE_UNKNOWN, f"the state of {unknown} of its software is unknown, and {allowed}."
    if evidence.exploits_unknown > policy.max_unknown_software:
        unknown = evidence.exploits_unknown
        yield ReasonCode.EXPLOITS_UNKNOWN, f"the exploits of {unknown} of its software are unknown, and {allowed}."
    risk_allowed = f"max_risk allows {policy.max_risk}; update the software, or lower issues.exploit_risk to waive it"
    if policy.max_risk is not None and not evidence.uncounted_risk <= policy.max_risk:
        yield (
            ReasonCode.EXPLOIT_UNCOUNTED,
            f"its worst exploit that is no issue has a risk of {evidence.uncounted_risk:g}, and {risk_allowed}.",
        )
    reported = sum(issue.is_open and not issue.polled for issue in evidence.issues)
    if evidence.unconfirmed_event or reported:
        what = f"{reported} of its issues are only reported by an event" if reported else "an event about it came in"
        yield (
            ReasonCode.EVENT_UNCONFIRMED,
            f"{what} and wait for a poll to confirm it; ask again in some minutes, or refresh it.",
        )


def _of_scan(evidence: ServerEvidence, policy: Policy, now: float) -> Iterator[_Doubt]:
    if policy.max_scan_age is None:
        return
    allowed = f"max_scan_age allows {spoken(policy.max_scan_age)}"
    if evidence.last_scan_at is None:
        yield ReasonCode.SCAN_NEVER_SEEN, f"no scan of it was seen yet, and {allowed}; start a scan."
        return
    age = now - evidence.last_scan_at
    if age < -CLOCK_TOLERANCE:
        yield (
            ReasonCode.SCAN_IN_FUTURE,
            f"its last scan lies {spoken(-age)} in the future; check the clocks and start a scan.",
        )
    elif not age <= policy.max_scan_age:
        yield ReasonCode.SCAN_TOO_OLD, f"its last scan is {spoken(age)} old, and {allowed}; start a scan."


def _notes(evidence: ServerEvidence) -> Iterator[_Doubt]:
    if not evidence.poll_success and evidence.last_poll_at is not None:
        yield ReasonCode.POLL_FAILED, "its last poll failed, so this rests on the last one that succeeded."
    if not evidence.account_reachable:
        yield (
            ReasonCode.ACCOUNT_UNREACHABLE,
            f"the last call for the server list of account {evidence.account} failed; see the log for the cause.",
        )


def spoken(seconds: float) -> str:
    """A duration for people, in its two largest units."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    rest = seconds
    if not 0 <= rest < 10**12:
        return f"{seconds} s"
    parts = []
    for unit, size in units:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{int(count)} {unit}")
    return " ".join(parts[:2]) or "0 s"


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
