"""What is counted of one server: all that its series show, and no more."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.issues.classify import counted_risks, kind_of, severity_of, state_of
from patrolserver_exporter.issues.model import SEVERITIES, STATES, Kind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.patrolserver.models import Server, Software

_MARK = "~"
_HASH_DIGITS = 8


class SoftwareInfo(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Labels of one ``patrolserver_server_software_info`` series: cut to length, unique within the server."""

    software: str
    version: str
    update_to: str
    state: str
    location: str
    parent: str


class ServerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One server as its series show it. Times are seconds since the epoch.

    ``open_issues`` and ``oldest_issue`` are in the order of ``SEVERITIES``, ``software`` in that of ``STATES``.
    """

    account: str
    server_id: int
    name: str
    verified: bool | None = None
    open_issues: tuple[int, int, int, int] | None = None
    """``None`` while nothing is known: neither a poll nor an event told. Then no such series exist."""
    waived_issues: int = 0
    oldest_issue: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    software: tuple[int, int, int, int] | None = None
    """``None`` until the first successful poll."""
    exploits: int = 0
    exploit_risk_max: float = 0.0
    scanning: bool = False
    last_scan_at: float | None = None
    last_poll_at: float | None = None
    """Start of the last successful poll."""
    poll_success: bool = False
    software_info: tuple[SoftwareInfo, ...] = ()
    software_info_dropped: int = 0
    """Series that the limit per server cut off."""
    judged_by: str = ""
    """The settings by which a poll made this, so that it is known when they have changed."""


def summarise(  # noqa: PLR0913  # all that a server's series show, by keyword
    *,
    account: str,
    server: Server,
    software: Sequence[Software] | None,
    issues: Iterable[Issue],
    exploit_risk: float,
    scanning: bool,
    last_scan_at: float | None,
    last_poll_at: float | None,
    poll_success: bool,
    software_series: bool = True,
    software_limit_per_server: int = 200,
    max_label_length: int = 128,
) -> ServerSummary:
    """What a server's series show.

    ``software`` is ``None`` until the first successful poll; ``issues`` may hold fixed ones, which do not count.
    The exploits counted are the known ones at or above ``exploit_risk``; the highest risk is that of all known ones.
    ``max_label_length`` is in characters.
    """
    open_ones = [issue for issue in issues if issue.is_open]
    counted = [issue for issue in open_ones if not issue.waived]
    installed = () if software is None else software
    infos = _infos(installed, exploit_risk, max_label_length) if software_series else ()
    return ServerSummary(
        account=account,
        server_id=server.id,
        name=server.name,
        verified=server.verified,
        open_issues=None if software is None and not open_ones else _open_issues(counted),
        waived_issues=len(open_ones) - len(counted),
        oldest_issue=_oldest_issue(counted),
        software=None if software is None else _states(software),
        exploits=sum(len(counted_risks(item, exploit_risk)) for item in installed),
        exploit_risk_max=max(_known_risks(installed), default=0.0),
        scanning=scanning,
        last_scan_at=last_scan_at,
        last_poll_at=last_poll_at,
        poll_success=poll_success,
        software_info=tuple(sorted(infos[:software_limit_per_server])),
        software_info_dropped=max(0, len(infos) - software_limit_per_server),
    )


def cut_label(value: str, limit: int) -> str:
    """The value in at most ``limit`` characters; if cut, its end is a hash, so that different ones stay different."""
    if len(value) <= limit:
        return value
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=_HASH_DIGITS // 2).hexdigest()
    ending = f"{_MARK}{digest}"
    return value[: limit - len(ending)] + ending if limit > len(ending) else digest[: max(limit, 0)]


def _open_issues(counted: Sequence[Issue]) -> tuple[int, int, int, int]:
    critical, high, medium, low = (sum(issue.severity is severity for issue in counted) for severity in SEVERITIES)
    return critical, high, medium, low


def _oldest_issue(counted: Sequence[Issue]) -> tuple[float | None, float | None, float | None, float | None]:
    critical, high, medium, low = (
        min((issue.first_seen for issue in counted if issue.severity is severity), default=None)
        for severity in SEVERITIES
    )
    return critical, high, medium, low


def _states(software: Sequence[Software]) -> tuple[int, int, int, int]:
    found = [state_of(item) for item in software]
    supported, outdated, unsupported, unknown = (found.count(state) for state in STATES)
    return supported, outdated, unsupported, unknown


def _known_risks(software: Iterable[Software]) -> Iterable[float]:
    return (exploit.risk for item in software for exploit in item.exploits or () if exploit.risk is not None)


def _infos(software: Iterable[Software], exploit_risk: float, limit: int) -> tuple[SoftwareInfo, ...]:
    """Label sets of what is not fine, each once, worst first."""
    worst: dict[SoftwareInfo, tuple[int, float]] = {}
    for item in software:
        badness = _badness(item, exploit_risk)
        if badness is not None:
            info = _info(item, limit)
            worst[info] = min(badness, worst.get(info, badness))
    return tuple(sorted(worst, key=lambda info: (worst[info], info)))


def _badness(software: Software, exploit_risk: float) -> tuple[int, float] | None:
    """Sort key, worst first; ``None`` for what is fine, or in a state that nobody knows."""
    kind, risk = kind_of(software), max(counted_risks(software, exploit_risk), default=None)
    severities: list[Severity] = [] if kind is None else [severity_of(kind)]
    if risk is not None:
        severities.append(severity_of(Kind.EXPLOITABLE, risk))
    if not severities:
        return None
    return min(SEVERITIES.index(severity) for severity in severities), -(risk or 0.0)


def _info(software: Software, limit: int) -> SoftwareInfo:
    return SoftwareInfo(
        software=cut_label(software.canonical_name, limit),
        version=cut_label(software.shown_version or "", limit),
        update_to=cut_label(software.newest_bugfix_release or "", limit),
        state=state_of(software).value,
        location=cut_label(software.location or "", limit),
        parent=cut_label(software.parent or "", limit),
    )
