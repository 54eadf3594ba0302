"""The lists as CSV: whole, in parts, each made of one bounded read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from patrolserver_exporter.web.spreadsheet import lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from patrolserver_exporter.web.api import types

ROWS = 1000
"""Rows of a part."""


class Sheet(NamedTuple):
    """What a list looks like as CSV."""

    columns: tuple[str, ...]
    row: Callable[[Any], Sequence[object]]

    @property
    def head(self) -> str:
        """The first line."""
        return ",".join(self.columns)

    def write(self, items: Iterable[Any], *, head: bool = False) -> bytes:
        """Items as lines; with ``head`` behind the first line."""
        return lines([*((self.columns,) if head else ()), *map(self.row, items)])

    async def parts(self, pages: AsyncIterator[Sequence[Any]]) -> AsyncIterator[bytes]:
        """The first line with the first page's, then each page's."""
        # An empty tuple as default would break the interpreter.
        yield self.write(await anext(pages, []), head=True)
        async for page in pages:
            yield self.write(page)


def _server(one: types.Server) -> tuple[object, ...]:
    issues, software = one.issues, one.software
    return (
        one.account,
        one.id,
        one.name,
        one.verified,
        *((None,) * 5 if issues is None else (issues.critical, issues.high, issues.medium, issues.low, issues.waived)),
        *(
            (None,) * 4
            if software is None
            else (software.supported, software.outdated, software.unsupported, software.unknown)
        ),
        one.exploits,
        one.exploits_unknown_risk,
        one.exploit_risk_max,
        one.scanning,
        one.last_scan_at,
        one.last_poll_at,
        one.poll_success,
        one.poll_complete,
        one.unconfirmed_event,
        tuple(doubt.value for doubt in one.unknown_because),
        tuple(f"{name}={value}" for name, value in one.labels.items()),
    )


SERVERS = Sheet(
    (
        *("account", "id", "name", "verified", "critical", "high", "medium", "low", "waived"),
        *("supported", "outdated", "unsupported", "unknown", "exploits", "exploits_unknown_risk", "exploit_risk_max"),
        *("scanning", "last_scan_at", "last_poll_at", "poll_success", "poll_complete", "unconfirmed_event"),
        *("unknown_because", "labels"),
    ),
    _server,
)


def _issue(one: types.Issue) -> tuple[object, ...]:
    waiver = one.waiver
    return (
        *(one.account, one.server_id, one.server, one.severity.value, one.kind.value, one.software),
        *(one.canonical_name, one.version, one.update_to, one.location, one.parent, one.risk),
        tuple(exploit.cve or exploit.id or exploit.title or "unnamed" for exploit in one.exploits),
        *(one.title, one.first_seen, one.severity_since, one.last_seen, one.fixed_at, one.confirmed, one.waived),
        *((None, None) if waiver is None else (waiver.until.isoformat(), waiver.reason)),
        one.fingerprint,
    )


ISSUES = Sheet(
    (
        *("account", "server_id", "server", "severity", "kind", "software", "canonical_name", "version", "update_to"),
        *("location", "parent", "risk", "exploits", "title", "first_seen", "severity_since", "last_seen", "fixed_at"),
        *("confirmed", "waived", "waived_until", "waived_reason", "fingerprint"),
    ),
    _issue,
)


def _installed(one: types.Software) -> tuple[object, ...]:
    exploits = one.exploits
    return (
        *(one.id, one.name, one.canonical_name, one.version, one.state.value, one.update_to, one.parent, one.location),
        None if exploits is None else len(exploits),
        tuple(exploit.cve or exploit.id or exploit.title or "unnamed" for exploit in exploits or ()),
        "; ".join(one.candidates),
    )


SOFTWARE = Sheet(
    (
        *("id", "name", "canonical_name", "version", "state", "update_to", "parent", "location"),
        *("exploits", "exploit_names", "candidates"),
    ),
    _installed,
)


def _fleet_software(one: types.FleetSoftware) -> tuple[object, ...]:
    return (
        *(one.software, one.canonical_name, one.version, tuple(kind.value for kind in one.kinds)),
        None if one.severity is None else one.severity.value,
        *(one.risk, one.risk_unknown, one.exploits, one.update_to),
        *(one.servers, one.servers_waived, one.servers_state_unknown, one.servers_doubtful),
    )


FLEET_SOFTWARE = Sheet(
    (
        *("software", "canonical_name", "version", "kinds", "severity", "risk", "risk_unknown", "exploits"),
        *("update_to", "servers", "servers_waived", "servers_state_unknown", "servers_doubtful"),
    ),
    _fleet_software,
)


def _exploit(one: types.FleetExploit) -> tuple[object, ...]:
    return (
        *(one.id, one.cve, one.title, one.url, one.risk, one.risk_unknown),
        None if one.severity is None else one.severity.value,
        *(one.software, one.servers, one.servers_waived, one.servers_doubtful),
        tuple(server.name for server in one.on),
    )


EXPLOITS = Sheet(
    (
        *("id", "cve", "title", "url", "risk", "risk_unknown", "severity", "software"),
        *("servers", "servers_waived", "servers_doubtful", "on"),
    ),
    _exploit,
)
