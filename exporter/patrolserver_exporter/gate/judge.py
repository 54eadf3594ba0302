"""The deploy gate: whether what is known of a selection of servers meets a policy.

It fails closed. Old, missing or partial data is never a ground to pass.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.gate.doubts import CLOCK_TOLERANCE, doubt_of_unknown, doubts
from patrolserver_exporter.gate.evidence import Evidence, ServerEvidence, UnknownServer
from patrolserver_exporter.gate.policy import Limit, limits_of
from patrolserver_exporter.gate.telling import LISTED_WHOLE, MAX_LISTED
from patrolserver_exporter.gate.verdict import (
    Breach,
    Counts,
    Detail,
    JudgedIssue,
    Judgement,
    KindCounts,
    Omitted,
    Reason,
    ReasonCode,
    ServerJudgement,
    SeverityCounts,
    Verdict,
    Weighed,
    Worst,
    is_in_grace,
    merged,
    weigh,
)
from patrolserver_exporter.issues.model import SEVERITIES, Issue, Kind
from patrolserver_exporter.issues.waive import covers, day_of, is_expired

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.gate.policy import AcceptedIssue, Policy
    from patrolserver_exporter.issues.model import Waiver

NAMED_AT_ONCE = 5
"""Issues that the reason for a limit names, the worst first."""
EXPIRING_DAYS = 14
"""A waiver is mentioned from so many days before its end."""
LIST_TOLERANCE = 600.0
"""Seconds that the last server list may always be old: polls, which ``max_age`` is about, may be due more often."""
_PRUNED_EVERY = 100
"""Servers."""


def judge(  # noqa: PLR0913  # What decides it, by keyword.
    selection: Iterable[Evidence],
    policy: Policy,
    now: float,
    *,
    baseline: Iterable[AcceptedIssue] = (),
    waivers: Sequence[Waiver] = (),
    exploit_risk: float | None = None,
    detail: Detail | None = Detail.ALL,
) -> Judgement:
    """The verdict on the selected servers, in any order; one that is selected twice counts once.

    ``FAIL`` if what is known for sure of the servers beyond doubt breaks a limit, else ``UNKNOWN`` if a server is in
    doubt, if there is none, or if exploits of unknown risk alone break a limit, else ``PASS``. ``waivers`` are the
    configuration's, in addition to the policy's, and so is ``exploit_risk``: a server whose exploits were judged by
    another one is in doubt. ``now`` is in seconds since the epoch. ``detail`` is what is listed; ``None``: all, unless
    there are many servers.
    """
    judging = Judging(policy, now, baseline=baseline, waivers=waivers, exploit_risk=exploit_risk, detail=detail)
    asked = tuple(dict.fromkeys(selection))
    for server in sorted((one for one in asked if isinstance(one, ServerEvidence)), key=_place):
        judging.add(server)
    for one in asked:
        if isinstance(one, UnknownServer):
            judging.add(one)
    return judging.end()


class _Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server's open issues, weighed, and why it may be doubted."""

    evidence: ServerEvidence
    reasons: tuple[Reason, ...]
    weighed: tuple[Weighed, ...]

    @property
    def doubted(self) -> bool:
        return any(reason.blocking for reason in self.reasons)


class _Found:
    """What a limit counts."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.for_sure = 0
        """On servers beyond doubt, without exploits of unknown risk."""
        self.beyond_doubt = 0
        """On servers beyond doubt."""
        self.at_worst: Worst[tuple[str, Weighed]] = Worst()
        """On all servers, with the name of each."""

    @property
    def is_broken(self) -> bool:
        return self.at_worst.count > self.limit.allowed

    @property
    def is_broken_for_sure(self) -> bool:
        return self.for_sure > self.limit.allowed

    @property
    def depends_on_unknown_risk(self) -> bool:
        """Only exploits whose risk nobody knows break it."""
        return self.for_sure <= self.limit.allowed < self.beyond_doubt


class _Standing(NamedTuple):
    """All that a server's verdict depends on, once it is known which limits are broken."""

    doubted: bool
    limits: int
    """Those that count one of its issues, as bits."""

    @property
    def is_fine(self) -> bool:
        """It passes, whichever limits are broken."""
        return not (self.doubted or self.limits)

    def verdict(self, broken: int, rated: int) -> Verdict:
        """``broken`` are limits as bits, and ``rated`` those of them that do not depend on exploits of unknown risk."""
        if self.doubted:
            return Verdict.UNKNOWN
        return _verdict(fails=bool(self.limits & rated), doubted=bool(self.limits & broken))


class Judging:
    """A verdict in the making, on a fleet of any size: of what is not going to be listed, it only keeps counts.

    `add` the servers, each once and in the order in which they are to be listed, and then ask for the `end`. The
    arguments are those of `judge`.
    """

    def __init__(  # noqa: PLR0913  # What decides it, by keyword.
        self,
        policy: Policy,
        now: float,
        *,
        baseline: Iterable[AcceptedIssue] = (),
        waivers: Sequence[Waiver] = (),
        exploit_risk: float | None = None,
        detail: Detail | None = Detail.ALL,
    ) -> None:
        self._policy = policy
        self._now = now
        self._today = day_of(now)
        self._accepted = {issue.fingerprint: issue for issue in baseline}
        self._holding = (*waivers, *policy.waivers)
        self._exploit_risk = exploit_risk
        self._detail = detail
        self._judged = 0
        self._counts = _Tally()
        self._oldest: float | None = None
        self._is_any_known = False
        self._is_any_doubted = False
        self._unknown: dict[UnknownServer, None] = {}
        self._found = tuple(map(_Found, limits_of(policy)))
        self._breaches: Counter[int] = Counter()
        """How many issues the same limits count, which are bits."""
        self._standings: dict[_Standing, Worst[ServerJudgement]] = {}
        self._blocking: Worst[Reason] = Worst()
        self._notes: Worst[Reason] = Worst()
        self._waived: Worst[JudgedIssue] = Worst()
        self._uses = _WaiverUses(waivers, policy.waivers, self._today)

    @property
    def lists_all(self) -> bool:
        """Whether everything is listed."""
        return self._detail is Detail.ALL or (self._detail is None and self._judged <= LISTED_WHOLE)

    def add(self, evidence: Evidence) -> None:
        """Judge one more."""
        if isinstance(evidence, UnknownServer):
            if evidence not in self._unknown and not _is_fresh_list(evidence, self._policy, self._now):
                self._unknown[evidence] = None
                self._judged += 1
            return
        self._judged += 1
        server = self._weighed(evidence)
        limits = 0
        for one in server.weighed:
            limits |= self._hold_against_limits(server, one)
            if one.waiver is not None:
                waived = JudgedIssue(server=evidence.name, issue=_waived(one.issue, one.waiver))
                self._waived.add((), self._judged, waived)
            self._uses.see(evidence.name, one.issue)
        self._is_any_doubted = self._is_any_doubted or server.doubted
        self._keep(server, _Standing(server.doubted, limits))
        if not self.lists_all and self._judged % _PRUNED_EVERY == 0:
            self._forget()

    def _weighed(self, evidence: ServerEvidence) -> _Server:
        weighed = tuple(
            weigh(
                issue,
                evidence.name,
                policy=self._policy,
                waivers=self._holding,
                accepted=self._accepted_on(evidence, issue),
                today=self._today,
                has_grace=not issue.age_unknown
                and (evidence.history_since is None or issue.counts_since(None) > evidence.history_since),
            )
            for issue in sorted((one for one in evidence.issues if one.is_open), key=_badness)
        )
        lesser = max((_lesser_risk(evidence, one) for one in weighed), default=0.0)
        if lesser > evidence.uncounted_risk:
            evidence = replace(evidence, uncounted_risk=lesser)
        reasons = doubts(evidence, self._policy, self._now, exploit_risk=self._exploit_risk)
        return _Server(evidence=evidence, reasons=reasons, weighed=weighed)

    def _accepted_on(self, evidence: ServerEvidence, issue: Issue) -> AcceptedIssue | None:
        """The issue's entry in the baseline, unless it was accepted for a server of another name.

        Ids, and with them fingerprints, are the same in another fleet, and where a server was replaced in place.
        """
        accepted = self._accepted.get(issue.fingerprint)
        if accepted is None or accepted.server is None or accepted.server.lower() == evidence.name.lower():
            return accepted
        return None

    def _hold_against_limits(self, server: _Server, one: Weighed) -> int:
        """Count an issue; the limits that count it, as bits."""
        if one.counts_as is None:
            return 0
        limits, badness = 0, _badness(one.counts_as)
        for place, found in enumerate(self._found):
            if self._is_counted(found.limit, one, one.counts_as):
                limits |= 1 << place
                found.at_worst.add(badness, self._judged, (server.evidence.name, one))
                if not server.doubted:
                    found.beyond_doubt += 1
                    found.for_sure += self._is_counted(found.limit, one, one.known_as)
        self._breaches[limits] += 1
        return limits

    def _is_counted(self, limit: Limit, one: Weighed, issue: Issue | None) -> bool:
        if issue is None or not limit.counts(issue):
            return False
        return not (one.has_grace and is_in_grace(issue, limit.severity, self._policy, self._now))

    def _keep(self, server: _Server, standing: _Standing) -> None:
        evidence, tally = server.evidence, _Tally()
        for one in server.weighed:
            tally.see(one)
        self._counts.add(tally)
        age = None if evidence.last_poll_at is None else self._now - evidence.last_poll_at
        if age is not None:
            self._oldest = age if self._oldest is None else max(self._oldest, age)
        is_known = (age is not None and evidence.software is not None) or bool(server.weighed)
        self._is_any_known = self._is_any_known or is_known
        badness = tally.badness
        for reason in server.reasons:
            (self._blocking if reason.blocking else self._notes).add(badness, self._judged, reason)
        judgement = ServerJudgement(
            account=evidence.account,
            server_id=evidence.server_id,
            server=evidence.name,
            # Until it is known which limits are broken.
            verdict=Verdict.UNKNOWN,
            data_age_seconds=age,
            scan_age_seconds=None if evidence.last_scan_at is None else self._now - evidence.last_scan_at,
            counts=tally.counts() if is_known else None,
            reasons=server.reasons,
        )
        self._standings.setdefault(standing, Worst()).add(badness, self._judged, judgement)

    def _forget(self) -> None:
        """What is certainly not going to be listed."""
        for standing, servers in self._standings.items():
            servers.keep(0 if standing.is_fine else MAX_LISTED)
        for found in self._found:
            found.at_worst.keep(MAX_LISTED)
        self._blocking.keep(MAX_LISTED)
        self._notes.keep(MAX_LISTED)
        self._waived.keep(0)

    def end(self) -> Judgement:
        """The verdict on all that were added."""
        found = self._found
        unknown = tuple(map(_judge_unknown, sorted(self._unknown, key=str)))
        for one in unknown:
            for reason in one.reasons:
                self._blocking.add(_Tally().badness, self._judged + 1, reason)
        broken = _bits(one.is_broken for one in found)
        rated = _bits(one.is_broken and not one.depends_on_unknown_risk for one in found)
        doubted = not self._judged or bool(unknown) or self._is_any_doubted
        doubted = doubted or any(one.depends_on_unknown_risk for one in found)
        by_verdict: Counter[Verdict] = Counter({Verdict.UNKNOWN: len(unknown)})
        for standing, servers in self._standings.items():
            by_verdict[standing.verdict(broken, rated)] += servers.count
        listed = self._listed_servers(broken, rated, unknown)
        reasons, reasons_found = self._listed_reasons()
        violations = self._listed_violations()
        waived = self._waived.first(self._waived.count if self.lists_all else 0)
        violations_found = sum(count for limits, count in self._breaches.items() if limits & broken)
        return Judgement(
            verdict=_verdict(fails=any(one.is_broken_for_sure for one in found), doubted=doubted),
            servers=listed,
            servers_by_verdict=dict(by_verdict),
            counts=self._counts.counts(),
            is_any_known=self._is_any_known,
            data_age_seconds=self._oldest,
            breaches=tuple(
                Breach(limit=one.limit.name, allowed=one.limit.allowed, found=one.at_worst.count)
                for one in found
                if one.is_broken
            ),
            violations=violations,
            waived=tuple(waived),
            expired_waivers=self._uses.expired,
            unused_waivers=self._uses.unused,
            expiring_waivers=self._uses.expiring,
            reasons=reasons,
            omitted=Omitted(
                servers=self._judged - len(listed),
                issues=violations_found - len(violations),
                waived=self._waived.count - len(waived),
                reasons=reasons_found - len(reasons),
            ),
        )

    def _listed_servers(
        self, broken: int, rated: int, unknown: Sequence[ServerJudgement]
    ) -> tuple[ServerJudgement, ...]:
        by_verdict: dict[Verdict, list[Worst[ServerJudgement]]] = {verdict: [] for verdict in _WORST_FIRST}
        for standing, servers in self._standings.items():
            by_verdict[standing.verdict(broken, rated)].append(servers)
        if self.lists_all:
            judged = [
                (place, replace(server, verdict=verdict))
                for verdict, parts in by_verdict.items()
                for part in parts
                for _, place, server in part.entries()
            ]
            return (*(server for _, server in sorted(judged, key=lambda pair: pair[0])), *unknown)
        listed = [
            replace(server, verdict=verdict)
            for verdict in (Verdict.FAIL, Verdict.UNKNOWN)
            for server in merged(*by_verdict[verdict])[:MAX_LISTED]
        ]
        return (*listed, *unknown)[:MAX_LISTED]

    def _listed_reasons(self) -> tuple[tuple[Reason, ...], int]:
        """What is listed, and how many there are."""
        whole = (*_reasons_of_limits(self._found), *([] if self._judged else [_NOTHING_ASKED]))
        old, idle = self._uses.expired_of_policy, self._uses.unused
        of_waivers = (
            *(_reason_of_waiver(ReasonCode.WAIVER_EXPIRED, w.server, w.software, f"ended on {w.until}") for w in old),
            *(_reason_of_waiver(ReasonCode.WAIVER_UNUSED, w.server, w.software, "covers nothing") for w in idle),
        )
        count = len(whole) + self._blocking.count + self._notes.count + len(of_waivers)
        if self.lists_all:
            return (*whole, *merged(self._blocking, self._notes), *of_waivers), count
        listed = (*whole, *self._blocking.first(MAX_LISTED), *self._notes.first(MAX_LISTED), *of_waivers)
        return listed[:MAX_LISTED], count

    def _listed_violations(self) -> tuple[JudgedIssue, ...]:
        """Issues over a limit, each once, the worst first."""
        limits: dict[int, list[str]] = {}
        issues: dict[int, tuple[str, Weighed]] = {}
        for one in self._found:
            if one.is_broken:
                for server, weighed in one.at_worst.first(one.at_worst.count if self.lists_all else MAX_LISTED):
                    limits.setdefault(id(weighed), []).append(one.limit.name)
                    issues[id(weighed)] = (server, weighed)
        ordered = sorted(issues.items(), key=lambda item: _badness(item[1][1].counts_as or item[1][1].issue))
        return tuple(
            JudgedIssue(server=server, issue=weighed.issue, limits=tuple(limits[key]))
            for key, (server, weighed) in (ordered if self.lists_all else ordered[:MAX_LISTED])
        )


_WORST_FIRST = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS)
_NOTHING_ASKED = Reason(
    code=ReasonCode.EMPTY_SELECTION,
    message="No server was asked for, so nothing is known to be fine; name at least one server.",
    blocking=True,
)


class _Tally:
    """Open issues, counted: those that count, at the worst, and those that do not."""

    def __init__(self) -> None:
        self.severities = dict.fromkeys(SEVERITIES, 0)
        self.kinds = dict.fromkeys(Kind, 0)
        self.waived = 0
        self.accepted = 0
        self.unfixable = 0

    def see(self, one: Weighed) -> None:
        """Count one more."""
        if one.counts_as is not None:
            self.severities[one.counts_as.severity] += 1
            self.kinds[one.counts_as.kind] += 1
        self.waived += one.waiver is not None
        self.accepted += one.accepted
        self.unfixable += one.unfixable

    def add(self, other: _Tally) -> None:
        """Count what another one has counted."""
        for severity, count in other.severities.items():
            self.severities[severity] += count
        for kind, count in other.kinds.items():
            self.kinds[kind] += count
        self.waived += other.waived
        self.accepted += other.accepted
        self.unfixable += other.unfixable

    @property
    def badness(self) -> tuple[int, ...]:
        """The least is the worst."""
        return tuple(-self.severities[severity] for severity in SEVERITIES)

    def counts(self) -> Counts:
        """As a judgement has them."""
        return Counts(
            total=sum(self.severities.values()),
            by_severity=SeverityCounts(**{severity.value: count for severity, count in self.severities.items()}),
            by_kind=KindCounts(**{kind.value: count for kind, count in self.kinds.items()}),
            waived=self.waived,
            baseline=self.accepted,
            unfixable=self.unfixable,
        )


class _WaiverUses:
    """Which waivers cover one of the open issues, and which do not."""

    def __init__(self, configured: Sequence[Waiver], asked: Sequence[Waiver], today: dt.date) -> None:
        soon = today + dt.timedelta(days=EXPIRING_DAYS)
        self.expired_of_policy = tuple(waiver for waiver in asked if is_expired(waiver, today))
        self._configured = configured
        self._today = today
        self._asked = tuple(waiver for waiver in asked if not is_expired(waiver, today))
        self._ending = tuple(
            waiver
            for waiver in dict.fromkeys((*configured, *asked))
            if not is_expired(waiver, today) and waiver.until <= soon
        )
        lapsed = (waiver for waiver in configured if is_expired(waiver, today))
        self._idle = dict.fromkeys((*lapsed, *self._asked, *self._ending))
        """Those of interest that cover nothing so far."""

    def see(self, server: str, issue: Issue) -> None:
        """Look at an open issue."""
        if self._idle:
            for waiver in [one for one in self._idle if covers(one, issue, server)]:
                del self._idle[waiver]

    @property
    def expired(self) -> tuple[Waiver, ...]:
        """The policy's that ran out, and those of the configuration that ran out and are about an open issue."""
        lapsed = [one for one in self._configured if is_expired(one, self._today) and one not in self._idle]
        return tuple(dict.fromkeys((*self.expired_of_policy, *lapsed)))

    @property
    def unused(self) -> tuple[Waiver, ...]:
        """The policy's that hold and cover nothing."""
        return tuple(one for one in self._asked if one in self._idle)

    @property
    def expiring(self) -> tuple[Waiver, ...]:
        """Those that cover an open issue and end soon."""
        return tuple(one for one in self._ending if one not in self._idle)


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << place for place, flag in enumerate(flags) if flag)


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


def _lesser_risk(evidence: ServerEvidence, one: Weighed) -> float:
    """The highest risk of exploits beside those that a waiver of exploits, or the baseline, covers; 0 elsewhere."""
    if one.accepted or (one.waiver is not None and one.waiver.exploit is not None):
        return dict(evidence.lesser_risks).get(one.issue.fingerprint, 0.0)
    return 0.0


def _badness(issue: Issue) -> tuple[int, float, tuple[str, str, bool, bool, str], str]:
    return SEVERITIES.index(issue.severity), -(issue.risk or 0.0), issue.identity.order, issue.fingerprint


def _judge_unknown(unknown: UnknownServer) -> ServerJudgement:
    return ServerJudgement(
        account=unknown.account,
        server_id=None,
        server=unknown.selector,
        verdict=Verdict.UNKNOWN,
        reasons=(doubt_of_unknown(unknown),),
    )


def _waived(issue: Issue, waiver: Waiver) -> Issue:
    return msgspec.structs.replace(issue, waived_until=waiver.until, waived_reason=waiver.reason)


def _reasons_of_limits(found: Iterable[_Found]) -> Iterable[Reason]:
    for one in found:
        if not one.is_broken:
            continue
        limit, count = one.limit, one.at_worst.count
        allows = f"{limit.name} allows {limit.allowed}: {_named(one.at_worst)}"
        if one.depends_on_unknown_risk:
            message = (
                f"Open issues that {limit.wording}, if exploits whose risk nobody knows are taken for the worst: "
                f"{count}, and {allows}; look at them, and waive those that are harmless "
                f"(the limit is {limit.flag} on the command line)."
            )
            yield Reason(code=ReasonCode.EXPLOIT_RISK_UNKNOWN, message=message, blocking=True)
        else:
            message = (
                f"Open issues that {limit.wording}: {count}, and {allows}; fix them, waive them, or raise the limit "
                f"({limit.flag} on the command line)."
            )
            yield Reason(code=ReasonCode.LIMIT_EXCEEDED, message=message, blocking=True)


def _named(found: Worst[tuple[str, Weighed]]) -> str:
    worst = [
        f"{weighed.issue.canonical_name or weighed.issue.title or 'the server'} on {server}"
        f" ({_described(weighed.issue)})"
        for server, weighed in found.first(NAMED_AT_ONCE)
    ]
    rest = found.count - len(worst)
    return ", ".join(worst) + (f" and {rest} more" if rest else "")


def _described(issue: Issue) -> str:
    if issue.kind is not Kind.EXPLOITABLE:
        return f"{issue.severity.value}, {issue.kind.value}"
    return f"{issue.severity.value}, risk {'unknown' if issue.risk is None else format(issue.risk, 'g')}"


def _reason_of_waiver(code: ReasonCode, server: str, software: str, what: str) -> Reason:
    message = f"The policy's waiver for {software} on {server} {what}; renew it or take it out."
    return Reason(code=code, message=message, blocking=False)
