"""What is counted of one server: all that its series show, and no more."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from patrolserver_exporter.issues.classify import (
    counted_exploits,
    full_severity,
    kind_of,
    known_risk,
    order,
    severity_of,
    severity_of_exploits,
    state_of,
    worst,
)
from patrolserver_exporter.issues.model import SEVERITIES, STATES, Kind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.patrolserver.models import Exploit, Server, Software

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
    severity: str = ""
    risk: str = ""
    """The highest known risk of its counted exploits; ``unknown`` when none of theirs is known."""


class ExploitInfo(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Labels of one ``patrolserver_server_exploit_info`` series: cut to length, unique within the server."""

    software: str
    exploit: str
    """Its CVE, else the vendor's identifier, else its title."""
    risk: str
    """``unknown`` when nobody knows it."""


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
    exploits: int | None = None
    """Known ones at or above ``issues.exploit_risk``; ``None`` while the exploits of no software are known."""
    exploits_unknown_risk: int = 0
    """Those of them whose risk nobody knows."""
    exploit_risk_max: float | None = None
    """Highest known risk of any; ``None`` too when exploits are known, but the risk of none."""
    scanning: bool = False
    last_scan_at: float | None = None
    last_poll_at: float | None = None
    """Start of the last successful poll."""
    poll_success: bool = False
    poll_complete: bool = False
    """The last successful poll was whole and not empty."""
    in_doubt: bool = False
    """What is known may be out of date or another server's: an event, a new name or a list waits for a poll."""
    software_info: tuple[SoftwareInfo, ...] = ()
    software_info_dropped: int = 0
    """Series that the limit per server cut off."""
    exploit_info: tuple[ExploitInfo, ...] = ()
    exploit_info_dropped: int = 0
    """Series that the limit per server cut off."""
    classified_by: str = msgspec.field(default="", name="judged_by")
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
    poll_complete: bool = True,
    software_series: bool = True,
    exploit_series: bool = True,
    software_limit_per_server: int = 200,
    max_label_length: int = 128,
) -> ServerSummary:
    """What a server's series show.

    ``software`` is ``None`` until the first successful poll; ``issues`` may hold fixed ones, which do not count.
    The exploits counted are the known ones at or above ``exploit_risk``; the highest risk is that of all known ones.
    The oldest issue of a severity is the one that has had it for longest. ``max_label_length`` is in characters.
    """
    open_ones = [issue for issue in issues if issue.is_open]
    counted = [issue for issue in open_ones if not issue.waived]
    installed = () if software is None else software
    reported = [issue for issue in open_ones if issue.kind is Kind.REPORTED]
    infos = _infos(installed, reported, exploit_risk, max_label_length) if software_series else ()
    exploits = [
        (item.canonical_name, exploit) for item in installed for exploit in counted_exploits(item, exploit_risk)
    ]
    exploit_infos = _exploit_infos(exploits, max_label_length) if exploit_series else ()
    known = [exploit for item in installed for exploit in item.exploits or ()]
    told = any(item.exploits is not None for item in installed)
    return ServerSummary(
        account=account,
        server_id=server.id,
        name=server.name,
        verified=server.verified,
        open_issues=None if software is None and not open_ones else _open_issues(counted),
        waived_issues=len(open_ones) - len(counted),
        oldest_issue=_oldest_issue(counted),
        software=None if software is None else _states(software),
        exploits=len(exploits) if told else None,
        exploits_unknown_risk=sum(exploit.risk is None for _, exploit in exploits),
        exploit_risk_max=known_risk(known) if known else 0.0 if told else None,
        scanning=scanning,
        last_scan_at=last_scan_at,
        last_poll_at=last_poll_at,
        poll_success=poll_success,
        poll_complete=poll_complete,
        software_info=tuple(sorted(infos[:software_limit_per_server])),
        software_info_dropped=max(0, len(infos) - software_limit_per_server),
        exploit_info=tuple(sorted(exploit_infos[:software_limit_per_server])),
        exploit_info_dropped=max(0, len(exploit_infos) - software_limit_per_server),
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
        min((_since(issue) for issue in counted if issue.severity is severity), default=None) for severity in SEVERITIES
    )
    return critical, high, medium, low


def _since(issue: Issue) -> float:
    """Since when it has counted as severe as it does; where waivers cover the worst of it, since it was so or worse."""
    if issue.severity is full_severity(issue):
        return issue.severity_since
    since = issue.since(issue.severity)
    return issue.first_seen if since is None else since


def _states(software: Sequence[Software]) -> tuple[int, int, int, int]:
    found = [state_of(item) for item in software]
    supported, outdated, unsupported, unknown = (found.count(state) for state in STATES)
    return supported, outdated, unsupported, unknown


def _infos(
    software: Iterable[Software], reported: Iterable[Issue], exploit_risk: float, limit: int
) -> tuple[SoftwareInfo, ...]:
    """Label sets of what is not fine, each once, worst first; what only an event reported is among them."""
    badness: dict[SoftwareInfo, tuple[int, float]] = {}
    for item in software:
        exploits = counted_exploits(item, exploit_risk)
        severity = _severity_of(item, exploits)
        if severity is not None:
            info = _info(item, severity, exploits, limit)
            bad = SEVERITIES.index(severity), -(known_risk(exploits) or 0.0)
            badness[info] = min(bad, badness.get(info, bad))
    for issue in reported:
        badness[_reported_info(issue, limit)] = SEVERITIES.index(issue.severity), 0.0
    return tuple(sorted(badness, key=lambda info: (badness[info], info)))


def _severity_of(software: Software, exploits: Sequence[Exploit]) -> Severity | None:
    """How bad it is; ``None`` for what is fine, or in a state that nobody knows."""
    kind = kind_of(software)
    severities = [] if kind is None else [severity_of(kind)]
    if exploits:
        severities.append(severity_of_exploits(exploits))
    return worst(severities) if severities else None


def _info(software: Software, severity: Severity, exploits: Sequence[Exploit], limit: int) -> SoftwareInfo:
    return SoftwareInfo(
        software=cut_label(software.canonical_name, limit),
        version=cut_label(software.shown_version or "", limit),
        update_to=cut_label(software.newest_bugfix_release or "", limit),
        state=state_of(software).value,
        location=cut_label(software.location or "", limit),
        parent=cut_label(software.parent or "", limit),
        severity=severity.value,
        risk=_risk_text(known_risk(exploits)) if exploits else "",
    )


def _reported_info(issue: Issue, limit: int) -> SoftwareInfo:
    """Of an issue that names no software, its title stands for it."""
    return SoftwareInfo(
        software=cut_label(issue.canonical_name or issue.title or "", limit),
        version=cut_label(issue.version or "", limit),
        update_to=cut_label(issue.update_to or "", limit),
        state=Kind.REPORTED.value,
        location=cut_label(issue.location or "", limit),
        parent=cut_label(issue.parent or "", limit),
        severity=issue.severity.value,
    )


def _exploit_infos(exploits: Iterable[tuple[str, Exploit]], limit: int) -> tuple[ExploitInfo, ...]:
    """Label sets of exploits, each once, worst first; one of unknown risk may be the worst."""
    infos = {
        ExploitInfo(
            software=cut_label(software, limit),
            exploit=cut_label(exploit.reference or exploit.title or "", limit),
            risk=_risk_text(exploit.risk),
        ): order(exploit)
        for software, exploit in exploits
    }
    return tuple(sorted(infos, key=lambda info: (infos[info][0], info)))


def _risk_text(risk: float | None) -> str:
    return "unknown" if risk is None else f"{risk:g}"
