"""The deploy gate: whether what is known of a selection of servers meets a policy.

It fails closed. Old, missing or partial data is never a ground to pass.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.gate.evidence import Evidence, ServerEvidence, UnknownServer
from patrolserver_exporter.gate.policy import Limit, limits_of
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
    Weighed,
    is_in_grace,
    weigh,
)
from patrolserver_exporter.issues.model import SEVERITIES, STATES, Issue, Kind, State
from patrolserver_exporter.issues.waive import covers, day_of, expired, is_expired, unused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from patrolserver_exporter.gate.policy import AcceptedIssue, Policy
    from patrolserver_exporter.issues.model import Waiver

NAMED_AT_ONCE = 5
"""Issues that the reason for a limit names, the worst first."""
EXPIRING_DAYS = 14
"""A waiver is mentioned from so many days before its end."""
CLOCK_TOLERANCE = 300.0
"""Seconds that a time may lie in the future, because clocks differ."""
LIST_TOLERANCE = 600.0
"""Seconds that the last server list may always be old: polls, which ``max_age`` is about, may be due more often."""

_Doubt = tuple[ReasonCode, str]


def doubts(
    evidence: ServerEvidence, policy: Policy, now: float, *, exploit_risk: float | None = None
) -> tuple[Reason, ...]:
    """All that keeps the server's verdict ``unknown``, and then what is only worth knowing."""
    blocking = (
        *_of_poll(evidence, policy, now),
        *_of_content(evidence, policy, exploit_risk),
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
    """The doubt about a server that was asked for and is not known."""
    where = "" if unknown.account is None else f" in account {unknown.account}"
    if unknown.refused:
        code = ReasonCode.CREDENTIALS_REFUSED
        message = (
            f"{unknown.selector}: PatrolServer refuses the credentials of account {unknown.account}, so nobody knows "
            "which servers it has; renew its key and secret."
        )
    elif unknown.listed_at is not None:
        code = ReasonCode.LIST_INCOMPLETE
        message = (
            f"{unknown.selector}: the last server list{where} is older than max_age, so nobody knows which servers "
            "there are besides; see the log for why no newer one could be read, or ask by id or name."
        )
    elif unknown.list_incomplete is not None:
        code = ReasonCode.LIST_INCOMPLETE
        message = (
            f"{unknown.selector}: the last server list{where} was not whole ({unknown.list_incomplete}), so nobody "
            "knows which servers there are besides; wait for a whole list, or ask by id or name."
        )
    elif unknown.ambiguous_in:
        code = ReasonCode.AMBIGUOUS_SERVER
        message = (
            f"{unknown.selector}: {len(unknown.ambiguous_in)} accounts have such a server "
            f"({', '.join(sorted(unknown.ambiguous_in))}); say which account, or ask by id."
        )
    elif unknown.never_listed:
        code = ReasonCode.NEVER_LISTED
        message = (
            f"{unknown.selector}: the server list{where} was never read, so nobody knows which servers it has; "
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
    if evidence.identity_in_doubt:
        yield (
            ReasonCode.IDENTITY_IN_DOUBT,
            (
                "it has another name than before or came back, and was not polled as a whole since, so what is known "
                "may be another server's; refresh it."
            ),
        )
    if evidence.missing_from_list:
        yield (
            ReasonCode.MISSING_FROM_LIST,
            (
                f"the last server list of account {evidence.account} lacked it, and waits to be confirmed by another "
                "one; ask again in some minutes."
            ),
        )
    if evidence.empty and not policy.allow_empty:
        yield (
            ReasonCode.NO_SOFTWARE,
            (
                "PatrolServer lists no software of it, so nothing was looked at; have it scanned, or set allow_empty "
                "(--allow-empty) if it really has none."
            ),
        )
    if not evidence.poll_complete and not evidence.empty:
        why = evidence.incomplete_because or "it had entries that could not be read"
        yield (
            ReasonCode.POLL_INCOMPLETE,
            f"its last successful poll was not whole ({why}); look into the log, and refresh it.",
        )


def _of_content(evidence: ServerEvidence, policy: Policy, exploit_risk: float | None) -> Iterator[_Doubt]:
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
    elif exploit_risk is not None and evidence.uncounted_risk >= exploit_risk:
        yield (
            ReasonCode.EXPLOIT_UNCOUNTED,
            (
                f"it has an exploit with a risk of {evidence.uncounted_risk:g}, which issues.exploit_risk counts only "
                "since the configuration changed, and is not judged again yet; ask again in some minutes."
            ),
        )
    reported = sum(issue.is_open and not issue.polled for issue in evidence.issues)
    if evidence.unconfirmed_event or reported:
        of_events = f"{reported} of its issues are only reported by an event and wait"
        what = of_events if reported else "an event about it waits"
        yield (
            ReasonCode.EVENT_UNCONFIRMED,
            f"{what} for a poll to confirm it; ask again in some minutes, or refresh it.",
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


class _Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server's open issues, weighed, and why it may be doubted."""

    evidence: ServerEvidence
    reasons: tuple[Reason, ...]
    weighed: tuple[Weighed, ...]

    @property
    def doubted(self) -> bool:
        return any(reason.blocking for reason in self.reasons)

    @property
    def counted(self) -> tuple[Issue, ...]:
        """What counts, at the worst."""
        return tuple(one.counts_as for one in self.weighed if one.counts_as is not None)


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a limit counts."""

    limit: Limit
    for_sure: int
    """On servers beyond doubt, without exploits of unknown risk."""
    beyond_doubt: int
    """On servers beyond doubt."""
    at_worst: tuple[tuple[_Server, Weighed], ...]
    """On all servers, the worst first."""

    @property
    def is_broken(self) -> bool:
        return len(self.at_worst) > self.limit.allowed

    @property
    def is_broken_for_sure(self) -> bool:
        return self.for_sure > self.limit.allowed

    @property
    def depends_on_unknown_risk(self) -> bool:
        """Only exploits whose risk nobody knows break it."""
        return self.for_sure <= self.limit.allowed < self.beyond_doubt


def judge(  # noqa: PLR0913  # What decides it, by keyword.
    selection: Iterable[Evidence],
    policy: Policy,
    now: float,
    *,
    baseline: Iterable[AcceptedIssue] = (),
    waivers: Sequence[Waiver] = (),
    exploit_risk: float | None = None,
) -> Judgement:
    """The verdict on the selected servers, in any order; one that is selected twice counts once.

    ``FAIL`` if what is known for sure of the servers beyond doubt breaks a limit, else ``UNKNOWN`` if a server is in
    doubt, if there is none, or if exploits of unknown risk alone break a limit, else ``PASS``. ``waivers`` are the
    configuration's, in addition to the policy's, and so is ``exploit_risk``: a server whose exploits were judged by
    another one is in doubt. ``now`` is in seconds since the epoch.
    """
    asked = tuple(dict.fromkeys(one for one in selection if not _is_fresh_list(one, policy, now)))
    today = day_of(now)
    accepted = {issue.fingerprint: issue for issue in baseline}
    holding = (*waivers, *policy.waivers)
    servers = tuple(
        _weighed(evidence, policy, holding, accepted, now, exploit_risk)
        for evidence in sorted((e for e in asked if isinstance(e, ServerEvidence)), key=_place)
    )
    unknown = tuple(sorted((e for e in asked if isinstance(e, UnknownServer)), key=str))
    found = tuple(_found(limit, servers, policy, now) for limit in limits_of(policy))
    doubted = not asked or bool(unknown) or any(server.doubted for server in servers)
    doubted = doubted or any(one.depends_on_unknown_risk for one in found)
    judged = (*(_judge_server(server, found, now) for server in servers), *(_judge_unknown(one) for one in unknown))
    open_issues = [(s.evidence.name, one.issue) for s in servers for one in s.weighed]
    old, idle = expired(policy.waivers, today), unused(policy.waivers, open_issues, today)
    return Judgement(
        verdict=_verdict(fails=any(one.is_broken_for_sure for one in found), doubted=doubted),
        servers=judged,
        counts=_counts(servers),
        violations=_violations(found),
        waived=tuple(
            JudgedIssue(server=s.evidence.name, issue=_waived(one.issue, one.waiver))
            for s in servers
            for one in s.weighed
            if one.waiver is not None
        ),
        expired_waivers=tuple(dict.fromkeys((*old, *_lapsed(waivers, open_issues, today)))),
        unused_waivers=idle,
        expiring_waivers=_expiring(holding, open_issues, today),
        reasons=(
            *_reasons_of_limits(found),
            *_reasons_of_selection(asked),
            *(reason for server in sorted(judged, key=_worst_first) for reason in server.reasons),
            *(_reason_of_waiver(ReasonCode.WAIVER_EXPIRED, w.server, w.software, f"ended on {w.until}") for w in old),
            *(_reason_of_waiver(ReasonCode.WAIVER_UNUSED, w.server, w.software, "covers nothing") for w in idle),
        ),
    )


def _is_fresh_list(evidence: Evidence, policy: Policy, now: float) -> bool:
    """Whether it only tells when a list was read, and that is late enough for the policy."""
    if isinstance(evidence, ServerEvidence) or evidence.listed_at is None:
        return False
    return -CLOCK_TOLERANCE <= now - evidence.listed_at <= max(policy.max_age, LIST_TOLERANCE)


def _verdict(*, fails: bool, doubted: bool) -> Verdict:
    if fails:
        return Verdict.FAIL
    return Verdict.UNKNOWN if doubted else Verdict.PASS


def _place(evidence: ServerEvidence) -> tuple[str, str, int, str]:
    return evidence.account, evidence.name, evidence.server_id, str(evidence)


def _worst_first(server: ServerJudgement) -> tuple[int, ...]:
    counts = server.counts or Counts()
    severities = counts.by_severity
    return tuple(-count for count in (severities.critical, severities.high, severities.medium, severities.low))


def _weighed(  # noqa: PLR0913, PLR0917  # What decides it.
    evidence: ServerEvidence,
    policy: Policy,
    waivers: Sequence[Waiver],
    accepted: Mapping[str, AcceptedIssue],
    now: float,
    exploit_risk: float | None,
) -> _Server:
    weighed = tuple(
        weigh(
            issue,
            evidence.name,
            policy=policy,
            waivers=waivers,
            accepted=accepted.get(issue.fingerprint),
            today=day_of(now),
            has_grace=evidence.history_since is None or issue.first_seen > evidence.history_since,
        )
        for issue in sorted((one for one in evidence.issues if one.is_open), key=_badness)
    )
    lesser = max((_lesser_risk(evidence, one) for one in weighed), default=0.0)
    if lesser > evidence.uncounted_risk:
        evidence = replace(evidence, uncounted_risk=lesser)
    reasons = doubts(evidence, policy, now, exploit_risk=exploit_risk)
    return _Server(evidence=evidence, reasons=reasons, weighed=weighed)


def _lesser_risk(evidence: ServerEvidence, one: Weighed) -> float:
    """The highest risk of exploits beside those that a waiver of exploits, or the baseline, covers; 0 elsewhere."""
    if one.accepted or (one.waiver is not None and one.waiver.exploit is not None):
        return dict(evidence.lesser_risks).get(one.issue.fingerprint, 0.0)
    return 0.0


def _badness(issue: Issue) -> tuple[int, float, tuple[str, str, bool, bool, str], str]:
    return SEVERITIES.index(issue.severity), -(issue.risk or 0.0), issue.identity.order, issue.fingerprint


def _found(limit: Limit, servers: Sequence[_Server], policy: Policy, now: float) -> _Found:
    def counts(one: Weighed, issue: Issue | None) -> bool:
        if issue is None or not limit.counts(issue):
            return False
        return not (one.has_grace and is_in_grace(issue, limit.severity, policy, now))

    at_worst = [(server, one) for server in servers for one in server.weighed if counts(one, one.counts_as)]
    beyond_doubt = [one for server, one in at_worst if not server.doubted]
    return _Found(
        limit=limit,
        for_sure=sum(counts(one, one.known_as) for one in beyond_doubt),
        beyond_doubt=len(beyond_doubt),
        at_worst=tuple(sorted(at_worst, key=lambda pair: _badness(pair[1].counts_as or pair[1].issue))),
    )


def _counts(servers: Sequence[_Server]) -> Counts:
    counted = [issue for server in servers for issue in server.counted]
    weighed = [one for server in servers for one in server.weighed]
    return Counts(
        total=len(counted),
        by_severity=SeverityCounts(
            **{severity.value: sum(issue.severity is severity for issue in counted) for severity in SEVERITIES}
        ),
        by_kind=KindCounts(**{kind.value: sum(issue.kind is kind for issue in counted) for kind in Kind}),
        waived=sum(one.waiver is not None for one in weighed),
        baseline=sum(one.accepted for one in weighed),
        unfixable=sum(one.unfixable for one in weighed),
    )


def _judge_server(server: _Server, found: Sequence[_Found], now: float) -> ServerJudgement:
    evidence = server.evidence
    broken = [one for one in found if one.is_broken and any(other is server for other, _ in one.at_worst)]
    rated = [one for one in broken if not one.depends_on_unknown_risk]
    known = evidence.last_poll_at is not None and evidence.software is not None
    return ServerJudgement(
        account=evidence.account,
        server_id=evidence.server_id,
        server=evidence.name,
        verdict=Verdict.UNKNOWN if server.doubted else _verdict(fails=bool(rated), doubted=bool(broken)),
        data_age_seconds=None if evidence.last_poll_at is None else now - evidence.last_poll_at,
        scan_age_seconds=None if evidence.last_scan_at is None else now - evidence.last_scan_at,
        counts=_counts([server]) if known or server.weighed else None,
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


def _violations(found: Sequence[_Found]) -> tuple[JudgedIssue, ...]:
    """Issues over a limit, each once, the worst first."""
    limits: dict[int, list[str]] = {}
    issues: dict[int, tuple[_Server, Weighed]] = {}
    for one in found:
        if one.is_broken:
            for server, weighed in one.at_worst:
                limits.setdefault(id(weighed), []).append(one.limit.name)
                issues[id(weighed)] = (server, weighed)
    ordered = sorted(issues.items(), key=lambda item: _badness(item[1][1].counts_as or item[1][1].issue))
    return tuple(
        JudgedIssue(server=server.evidence.name, issue=weighed.issue, limits=tuple(limits[key]))
        for key, (server, weighed) in ordered
    )


def _waived(issue: Issue, waiver: Waiver) -> Issue:
    return msgspec.structs.replace(issue, waived_until=waiver.until, waived_reason=waiver.reason)


def _reasons_of_limits(found: Iterable[_Found]) -> Iterable[Reason]:
    for one in found:
        if not one.is_broken:
            continue
        limit, count = one.limit, len(one.at_worst)
        allows = f"{limit.name} allows {limit.allowed}: {_named(one.at_worst)}"
        if one.depends_on_unknown_risk:
            message = (
                f"Open issues that {limit.wording}, if exploits whose risk nobody knows are taken for the worst: "
                f"{count}, and {allows}; look at them, and waive those that are harmless ({limit.flag} is the limit)."
            )
            yield Reason(code=ReasonCode.EXPLOIT_RISK_UNKNOWN, message=message, blocking=True)
        else:
            message = (
                f"Open issues that {limit.wording}: {count}, and {allows}; fix them, waive them, or raise the limit "
                f"({limit.flag})."
            )
            yield Reason(code=ReasonCode.LIMIT_EXCEEDED, message=message, blocking=True)


def _named(found: Sequence[tuple[_Server, Weighed]]) -> str:
    worst = [
        f"{weighed.issue.canonical_name or weighed.issue.title or 'the server'} on {server.evidence.name}"
        f" ({_described(weighed.issue)})"
        for server, weighed in found[:NAMED_AT_ONCE]
    ]
    rest = len(found) - len(worst)
    return ", ".join(worst) + (f" and {rest} more" if rest else "")


def _described(issue: Issue) -> str:
    if issue.kind is not Kind.EXPLOITABLE:
        return f"{issue.severity.value}, {issue.kind.value}"
    return f"{issue.severity.value}, risk {'unknown' if issue.risk is None else format(issue.risk, 'g')}"


def _reasons_of_selection(asked: Sequence[Evidence]) -> Iterable[Reason]:
    if not asked:
        message = "No server was asked for, so nothing is known to be fine; name at least one server."
        yield Reason(code=ReasonCode.EMPTY_SELECTION, message=message, blocking=True)


def _reason_of_waiver(code: ReasonCode, server: str, software: str, what: str) -> Reason:
    message = f"The policy's waiver for {software} on {server} {what}; renew it or take it out."
    return Reason(code=code, message=message, blocking=False)


def _lapsed(waivers: Sequence[Waiver], issues: Sequence[tuple[str, Issue]], today: dt.date) -> list[Waiver]:
    """Waivers that ran out and are about an issue that is still open."""
    return [
        waiver
        for waiver in waivers
        if is_expired(waiver, today) and any(covers(waiver, issue, name) for name, issue in issues)
    ]


def _expiring(waivers: Sequence[Waiver], issues: Sequence[tuple[str, Issue]], today: dt.date) -> tuple[Waiver, ...]:
    """Waivers that cover an open issue and end soon."""
    soon = today + dt.timedelta(days=EXPIRING_DAYS)
    return tuple(
        waiver
        for waiver in dict.fromkeys(waivers)
        if not is_expired(waiver, today)
        and waiver.until <= soon
        and any(covers(waiver, issue, name) for name, issue in issues)
    )
