"""Issues that somebody accepted, for a reason and up to a date."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter import globs
from patrolserver_exporter.issues.model import SEVERITIES, Change, ChangeKind, Issue, Severity, Waiver

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
    """Whether the waiver is about that issue, expired or not; both globs take capitals and small letters alike."""
    return (
        (waiver.kind is None or waiver.kind is issue.kind)
        and concerns(waiver, server_name)
        and globs.matches(waiver.software, issue.canonical_name)
        # An issue does not hold its exploits yet: a waiver of one of them must not cover them all.
        and waiver.exploit is None
        and (waiver.max_severity is None or not _is_worse(issue.severity, waiver.max_severity))
    )


def _is_worse(severity: Severity, than: Severity) -> bool:
    return SEVERITIES.index(severity) < SEVERITIES.index(than)


def waiver_for(issue: Issue, server_name: str, waivers: Iterable[Waiver], today: dt.date) -> Waiver | None:
    """The waiver that covers the issue today: the one that lasts longest, of several such the first."""
    holding = (w for w in waivers if not is_expired(w, today) and covers(w, issue, server_name))
    return max(holding, key=lambda waiver: waiver.until, default=None)


def uncovered(
    issue: Issue, server_name: str, waivers: Iterable[Waiver], today: dt.date
) -> tuple[Issue | None, Waiver | None]:
    """What of the issue no waiver covers today (``None``: nothing), and the waiver that covers it wholly."""
    waiver = waiver_for(issue, server_name, waivers, today)
    return (issue, None) if waiver is None else (None, waiver)


def apply_waivers(
    issues: Sequence[Issue], server_name: str, waivers: Sequence[Waiver], now: float
) -> tuple[tuple[Issue, ...], tuple[Change, ...]]:
    """The open issues whose waiver came, went or changed, and what the change feed tells."""
    today = day_of(now)
    changed: list[Issue] = []
    changes: list[Change] = []
    for issue in issues:
        if not issue.is_open:
            continue
        waiver = waiver_for(issue, server_name, waivers, today)
        until, reason = (None, None) if waiver is None else (waiver.until, waiver.reason)
        if (until, reason) == (issue.waived_until, issue.waived_reason):
            continue
        after = replace(issue, waived_until=until, waived_reason=reason)
        changed.append(after)
        if after.waived != issue.waived:
            kind = ChangeKind.WAIVED if after.waived else ChangeKind.UNWAIVED
            changes.append(Change(kind=kind, at=now, issue=after))
    return tuple(changed), tuple(changes)


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
