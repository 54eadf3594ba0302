"""Issues that somebody accepted, for a reason and up to a date."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter import globs
from patrolserver_exporter.issues.classify import is_worse, severity_of_risk, weighed
from patrolserver_exporter.issues.model import SEVERITIES, Change, ChangeKind, Issue, IssueExploit, Severity, Waiver

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def day_of(now: float) -> dt.date:
    """The day in UTC on which ``now`` (seconds since the epoch) lies."""
    return dt.datetime.fromtimestamp(now, dt.UTC).date()


def is_expired(waiver: Waiver, today: dt.date) -> bool:
    """Whether its last day, in UTC, is over."""
    return waiver.until < today


def concerns(waiver: Waiver, server_name: str) -> bool:
    """Whether the waiver is about servers of that name, expired or not."""
    return globs.matches(waiver.server, server_name)


def covers(waiver: Waiver, issue: Issue, server_name: str) -> bool:
    """Whether the waiver is about that issue, or one of its exploits, expired or not."""
    if not _fits(waiver, issue, server_name):
        return False
    if issue.exploits:
        return any(_covers_exploit(waiver, exploit) for exploit in issue.exploits)
    return _covers_whole(waiver, issue)


def _fits(waiver: Waiver, issue: Issue, server_name: str) -> bool:
    return (
        (waiver.kind is None or waiver.kind is issue.kind)
        and concerns(waiver, server_name)
        and globs.matches(waiver.software, issue.canonical_name)
    )


def _covers_whole(waiver: Waiver, issue: Issue) -> bool:
    """An issue that has no exploits to be distinguished; one stored without them may have any."""
    return waiver.exploit is None and _bears(waiver, issue.severity)


def _covers_exploit(waiver: Waiver, exploit: IssueExploit, unrated: Severity = Severity.HIGH) -> bool:
    names = (name for name in (exploit.id, exploit.cve) if name is not None)
    named = waiver.exploit is None or any(globs.matches(waiver.exploit, name) for name in names)
    return named and _bears(waiver, unrated if exploit.risk is None else severity_of_risk(exploit.risk))


def _bears(waiver: Waiver, severity: Severity) -> bool:
    return waiver.max_severity is None or not is_worse(severity, waiver.max_severity)


def cover(  # noqa: PLR0913  # what is covered by what, and how, by keyword
    issue: Issue,
    server_name: str,
    waivers: Iterable[Waiver],
    today: dt.date,
    *,
    beside: bool = False,
    unrated: Severity = Severity.HIGH,
) -> Issue:
    """The open issue as these waivers leave it today.

    It is waived when all its exploits are covered; if only some are, its severity and its risk are those of the
    others. Of several waivers the one that lasts longest stands. ``beside``: what covers it already today, still does.
    ``unrated`` is how severe an exploit is held to be whose risk nobody knows, where a waiver has a ``max_severity``.
    """
    holding = [w for w in waivers if not is_expired(w, today) and _fits(w, issue, server_name)]
    if not issue.exploits:
        held = _held(issue, today) if beside else None
        until, reason = _longest(held, (w for w in holding if _covers_whole(w, issue)))
        return replace(issue, waived_until=until, waived_reason=reason)
    exploits: list[IssueExploit] = []
    for exploit in issue.exploits:
        held = _held(exploit, today) if beside else None
        until, reason = _longest(held, (w for w in holding if _covers_exploit(w, exploit, unrated)))
        exploits.append(replace(exploit, waived_until=until, waived_reason=reason))
    ends = [(exploit.waived_until, exploit.waived_reason) for exploit in exploits if exploit.waived_until is not None]
    all_covered = len(ends) == len(exploits)
    until, reason = min(ends, key=lambda end: end[0]) if all_covered else (None, None)
    return weighed(replace(issue, exploits=tuple(exploits), waived_until=until, waived_reason=reason))


def uncovered(
    issue: Issue, server_name: str, waivers: Iterable[Waiver], today: dt.date
) -> tuple[Issue | None, Waiver | None]:
    """What of the open issue none of these waivers covers today: all of it, or what its other exploits make of it.

    ``None`` if they cover it wholly; then also the waiver that ends first. An exploit whose risk nobody knows may be
    critical, so a waiver that bears less does not cover it.
    """
    known = tuple(waivers)
    left = cover(issue, server_name, known, today, unrated=Severity.CRITICAL)
    if left.waived:
        end = (left.waived_until, left.waived_reason)
        return None, next(w for w in known if (w.until, w.reason) == end and covers(w, issue, server_name))
    return weighed(replace(left, exploits=tuple(one for one in left.exploits if not one.waived))), None


_End = tuple[dt.date, str | None]


def _held(waived: Issue | IssueExploit, today: dt.date) -> _End | None:
    """The waiver that covers it already, if it still holds."""
    until = waived.waived_until
    return None if until is None or until < today else (until, waived.waived_reason)


def _longest(held: _End | None, waivers: Iterable[Waiver]) -> _End | tuple[None, None]:
    ends = ([] if held is None else [held]) + [(waiver.until, waiver.reason) for waiver in waivers]
    return max(ends, key=lambda end: end[0], default=(None, None))


def apply_waivers(
    issues: Sequence[Issue], server_name: str, waivers: Sequence[Waiver], now: float
) -> tuple[tuple[Issue, ...], tuple[Change, ...]]:
    """The open issues whose waiver came, went or changed, and what the change feed tells.

    It is also told where waivers begin or cease to cover the worst of an issue's exploits.
    """
    today = day_of(now)
    changed: list[Issue] = []
    changes: list[Change] = []
    for issue in issues:
        if not issue.is_open:
            continue
        after = cover(issue, server_name, waivers, today)
        if after == issue:
            continue
        changed.append(after)
        before_weight, after_weight = _weight(issue), _weight(after)
        if after_weight != before_weight:
            kind = ChangeKind.WAIVED if after_weight > before_weight else ChangeKind.UNWAIVED
            changes.append(Change(kind=kind, at=now, issue=after))
    return tuple(changed), tuple(changes)


def _weight(issue: Issue) -> int:
    """How much it counts; the more, the lower."""
    return len(SEVERITIES) if issue.waived else SEVERITIES.index(issue.severity)


def expired(waivers: Iterable[Waiver], today: dt.date) -> tuple[Waiver, ...]:
    """Those that no longer hold."""
    return tuple(waiver for waiver in waivers if is_expired(waiver, today))


def unused(waivers: Iterable[Waiver], issues: Iterable[tuple[str, Issue]], today: dt.date) -> tuple[Waiver, ...]:
    """Those that hold but cover no open issue of ``issues``, which are pairs of a server's name and an issue."""
    known = [(name, issue) for name, issue in issues if issue.is_open]
    return tuple(
        waiver
        for waiver in waivers
        if not is_expired(waiver, today) and not any(covers(waiver, issue, name) for name, issue in known)
    )
