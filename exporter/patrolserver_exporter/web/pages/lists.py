"""The lists of issues, software, exploits and changes, as their pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from patrolserver_exporter.globs import literally
from patrolserver_exporter.issues.model import SEVERITIES, ChangeKind, IssueExploit
from patrolserver_exporter.web.api.lists import cve_url
from patrolserver_exporter.web.pages.words import counted, moment, number, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patrolserver_exporter.issues.spread import ExploitKey, ExploitSpread, Key, SoftwareSpread
    from patrolserver_exporter.store.history import StoredChange
    from patrolserver_exporter.store.queries import IssueRow
    from patrolserver_exporter.web.overview import Servers
    from patrolserver_exporter.web.pages.paths import Paths, Wanted
    from patrolserver_exporter.web.pages.words import Moment

ROWS = 50
"""Rows on a page of a list."""
_NAMED = 3


# What every list has


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A heading by which a list can be sorted."""

    name: str
    link: str
    sorted: str
    """``ascending``, ``descending`` or nothing, for those who cannot see the arrow."""
    numbers: bool = False


def columns(
    wanted: Wanted, usual: str, named: Sequence[tuple[str, str, bool]], link: Callable[[Wanted], str]
) -> tuple[Column, ...]:
    """The headings: key, name, and whether its cells are numbers. ``usual`` is the order without a wish.

    A click on the heading that rules already turns the order round. The first order of each is the one that people
    want first: the worst, the most, the oldest, or the first letter.
    """
    key, reverse = wanted.order
    key = key if any(key == one for one, _, _ in named) else usual
    found = []
    for one, name, numbers in named:
        rules = one == key
        sort = f"-{one}" if rules and not reverse else one
        shown = "" if sort == usual else sort
        state = ("ascending" if reverse else "descending") if rules else ""
        found.append(
            Column(name=name, link=link(msgspec.structs.replace(wanted, sort=shown)), sorted=state, numbers=numbers)
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pager:
    """Where in the list one is."""

    text: str
    page: int = 1
    last: int = 1
    first_link: str | None = None
    previous: str | None = None
    next: str | None = None
    last_link: str | None = None


def pager(  # noqa: PLR0913  # where, how much and of what, by keyword
    *, offset: int, shown: int, matching: int, link: Callable[[int], str], noun: str, nouns: str = ""
) -> Pager:
    """Say which part of the list this is, and link its neighbours and its ends."""
    page, last = offset // ROWS + 1, max(matching - 1, 0) // ROWS + 1
    words = counted(matching, noun, nouns or None)
    return Pager(
        text=(f"{number(offset + 1)}–{number(offset + shown)} of {words}" if last > 1 else words) if shown else "",
        page=page,
        last=last,
        first_link=link(1) if page > 2 else None,
        previous=link(page - 1) if page > 1 else None,
        next=link(page + 1) if page < last else None,
        last_link=link(last) if page < last - 1 else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A number of servers, and the list behind it; without one, nothing leads there."""

    count: int
    text: str
    link: str | None = None


# Exploits, wherever they are named


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploitView:
    """An exploit, by the name that people know."""

    name: str
    url: str | None
    """Where its CVE is told of."""
    risk: str
    waived: str


def exploit_views(exploits: Iterable[IssueExploit]) -> tuple[ExploitView, ...]:
    """Show the exploits of an issue."""
    return tuple(
        ExploitView(
            name=exploit.name or "without a name",
            url=cve_url(exploit.cve),
            risk="risk unknown" if exploit.risk is None else f"risk {exploit.risk:g}",
            waived="" if exploit.waived_until is None else f"waived until {exploit.waived_until.isoformat()}",
        )
        for exploit in exploits
    )


# Issues


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueLine:
    """An issue in the list over the fleet."""

    severity: str
    kind: str
    software: str
    version: str
    update_to: str
    place: str
    server: str
    account: str
    link: str
    exploits: tuple[ExploitView, ...]
    since: Moment
    fixed: Moment | None
    waived: str


def issue_line(row: IssueRow, paths: Paths, now: float) -> IssueLine:
    """Show an issue."""
    issue = row.issue
    return IssueLine(
        severity=issue.severity.value,
        kind=issue.kind.value,
        software=issue.software or issue.canonical_name or issue.title or "the server itself",
        version=issue.version or "",
        update_to=issue.update_to or "",
        place=place(issue.location, issue.parent),
        server=row.server.strip() or f"Server {issue.server_id}",
        account=issue.account,
        link=f"{paths.server(issue.server_id, issue.account)}#issue-{issue.fingerprint}",
        exploits=exploit_views(issue.exploits),
        since=moment(issue.severity_since, now),
        fixed=None if issue.fixed_at is None else moment(issue.fixed_at, now),
        waived="" if issue.waived_until is None else f"waived until {issue.waived_until.isoformat()}",
    )


# Software


class VersionLine(NamedTuple):
    """A version, and on how many servers it is, with those where nobody knows its state."""

    name: str
    servers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareLine:
    """A software over the fleet, all its versions together."""

    name: str
    severity: str
    kinds: str
    versions: tuple[VersionLine, ...]
    more_versions: int
    updates: str
    risk: str
    servers: Found
    waived: Found | None
    unknown: int
    """Servers where nobody knows whether it is supported."""
    doubtful: int
    """Servers among them whose data nobody can vouch for."""


class SoftwareGroup:
    """All versions of one software."""

    def __init__(self, versions: Sequence[SoftwareSpread]) -> None:
        self.versions = sorted(versions, key=lambda one: one.badness)
        self.canonical_name = versions[0].canonical_name
        self.name = self.versions[0].name
        self.servers: set[Key] = set().union(*(one.servers for one in versions))
        self.waived: set[Key] = set().union(*(one.waived for one in versions))
        self.unknown: set[Key] = set().union(*(one.state_unknown for one in versions))

    @property
    def badness(self) -> tuple[int, float, int]:
        """Sort key, the worst first."""
        rank, risk, _ = self.versions[0].badness
        return rank, risk, -len(self.servers)


def software_groups(found: Iterable[SoftwareSpread], sort: str, *, reverse: bool) -> list[SoftwareGroup]:
    """Group by canonical name, and sort: worst, servers, or name."""
    by_name: dict[str, list[SoftwareSpread]] = {}
    for one in found:
        by_name.setdefault(one.canonical_name, []).append(one)
    groups = sorted(map(SoftwareGroup, by_name.values()), key=lambda one: one.name.lower())
    match sort:
        case "name":
            groups.sort(key=lambda one: one.name.lower(), reverse=reverse)
        case "servers":
            groups.sort(key=lambda one: len(one.servers | one.unknown), reverse=not reverse)
        case _:
            groups.sort(key=lambda one: one.badness, reverse=reverse)
    return groups


def software_line(group: SoftwareGroup, servers: Servers, wanted: Wanted, paths: Paths) -> SoftwareLine:
    """Show a software; its number of servers leads to them."""
    behind = msgspec.structs.replace(wanted, software=(literally(group.canonical_name),), sort="", search="", state="")
    severities = [one.severity for one in group.versions if one.severity is not None]
    worst = min(severities, key=SEVERITIES.index, default=None)
    kinds = sorted({kind.value for one in group.versions for kind in one.kinds})
    updates = sorted({update for one in group.versions for update in one.updates})
    shown = [_version(one) for one in group.versions[:_NAMED]]
    return SoftwareLine(
        name=group.name,
        severity="" if worst is None else worst.value,
        kinds=", ".join(kinds),
        versions=tuple(shown),
        more_versions=len(group.versions) - len(shown),
        updates=", ".join(updates[:_NAMED]) + (" …" if len(updates) > _NAMED else ""),
        risk=_risk(group.versions),
        servers=_found(group.servers, msgspec.structs.replace(behind, waived=""), paths),
        waived=_found(group.waived, msgspec.structs.replace(behind, waived="true"), paths) if group.waived else None,
        unknown=len(group.unknown),
        doubtful=sum(key in servers.doubts for key in group.servers | group.unknown),
    )


def _version(one: SoftwareSpread) -> VersionLine:
    on, unknown = one.on or one.waived, len(one.state_unknown)
    where = "" if unknown == len(on) else f" on {number(unknown)}"
    return VersionLine(
        one.version or "version not known", number(len(on)) + (f" (state unknown{where})" if unknown else "")
    )


def _risk(found: Iterable[SoftwareSpread | ExploitSpread]) -> str:
    known = [one.risk for one in found if one.risk is not None]
    if any(one.risk_unknown for one in found):
        return f"{max(known):g} or worse" if known else "unknown"
    return f"{max(known):g}" if known else ""


def _found(servers: set[Key], behind: Wanted, paths: Paths) -> Found:
    count = len(servers)
    return Found(count=count, text=counted(count, "server"), link=paths.fleet(behind) + "#servers" if count else None)


# Exploits over the fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploitLine:
    """An exploit over the fleet."""

    name: str
    title: str
    url: str | None
    severity: str
    risk: str
    software: str
    servers: Found
    waived: Found | None
    doubtful: int
    named: str
    """Some of its servers."""


def exploit_lines(
    found: Iterable[tuple[ExploitKey, ExploitSpread]], sort: str, *, reverse: bool
) -> list[tuple[ExploitKey, ExploitSpread]]:
    """Sort: worst, servers, or name."""
    rows = sorted(found, key=lambda one: one[0])
    match sort:
        case "name":
            rows.sort(key=lambda one: one[0], reverse=reverse)
        case "servers":
            rows.sort(key=lambda one: len(one[1].servers), reverse=not reverse)
        case _:
            rows.sort(key=lambda one: one[1].badness, reverse=reverse)
    return rows


def exploit_line(key: ExploitKey, one: ExploitSpread, servers: Servers, wanted: Wanted, paths: Paths) -> ExploitLine:
    """Show an exploit; its number of servers leads to them, if it has a name by which they can be found."""
    behind = msgspec.structs.replace(wanted, exploit=(literally(key.name),), severity=(), sort="", search="", state="")
    can_be_found = key.named_by != "title"
    waived = _found(one.waived, msgspec.structs.replace(behind, waived="true"), paths)
    here = _found(one.servers, msgspec.structs.replace(behind, waived=""), paths)
    names = sorted(servers.states[on].name for on in one.servers if on in servers.states)
    return ExploitLine(
        name=key.name if can_be_found else "without a name",
        title=one.title or "",
        url=cve_url(one.cve),
        severity="" if one.severity is None else one.severity.value,
        risk=_risk([one]),
        software=", ".join(sorted(one.software)),
        servers=here if can_be_found else Found(count=here.count, text=here.text),
        waived=(waived if can_be_found else Found(count=waived.count, text=waived.text)) if waived.count else None,
        doubtful=sum(on in servers.doubts for on in one.servers),
        named=", ".join(names[:_NAMED]) + (f" and {number(len(names) - _NAMED)} more" if len(names) > _NAMED else ""),
    )


# Changes

DID = {
    ChangeKind.OPENED: "Opened",
    ChangeKind.FIXED: "Fixed",
    ChangeKind.REOPENED: "Opened again",
    ChangeKind.WORSENED: "Got worse",
    ChangeKind.EASED: "Eased",
    ChangeKind.WAIVED: "Waived",
    ChangeKind.UNWAIVED: "No longer waived",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLine:
    """An entry of the change feed."""

    at: Moment
    did: str
    severity: str
    kind: str
    software: str
    version: str
    server: str
    account: str
    link: str


def change_line(change: StoredChange, paths: Paths, now: float) -> ChangeLine:
    """Show a change."""
    issue = change.issue
    return ChangeLine(
        at=moment(change.at, now),
        did=DID[change.kind],
        severity=issue.severity.value,
        kind=issue.kind.value,
        software=issue.software or issue.canonical_name or issue.title or "the server itself",
        version=issue.version or "",
        server=change.server.strip() or f"Server {issue.server_id}",
        account=issue.account,
        link=paths.server(issue.server_id, issue.account),
    )
