"""A week of the demo's fleet, played through the exporter's own code, so that the series are the exporter's own."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from msgspec.structs import replace

from grafana.pictures.machine import Machine
from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.issues.merge import apply_poll
from patrolserver_exporter.issues.model import SEVERITIES, STATES, ChangeKind, State
from patrolserver_exporter.issues.summary import summarise
from patrolserver_exporter.live.account_series import AccountSeries
from patrolserver_exporter.live.fleet import FleetExposition
from patrolserver_exporter.live.gate_series import Judged
from patrolserver_exporter.live.publisher import Scrape
from patrolserver_exporter.patrolserver.models import Exploit, Server, Software
from patrolserver_exporter.simulator.fleet import dice, server_name, software_of
from patrolserver_exporter.simulator.software import Kind, altered
from patrolserver_exporter.store.history import Tally, fix_duration_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.issues.model import Issue
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.simulator import software as simulated

ACCOUNT = "demo"
STEP = 300
"""Seconds between two samples: Prometheus looks back no further for one."""
HOUR, DAY, WEEK = 3600, 86_400, 7 * 86_400
SERVERS, SOFTWARE, SEED = 25, 12, 1
EXPLOIT_RISK = 5.0
UNVERIFIED = 21
LATE_COMER = 23
"""The server that joined in the middle of the week."""


@dataclass(slots=True)
class Watched:
    """One server, as it is and as the exporter knows it."""

    index: int
    server: Server
    installed: list[simulated.Software]
    scanned: list[simulated.Software]
    """As the last scan found it: what PatrolServer tells."""
    issues: tuple[Issue, ...] = ()
    scanning: bool = False
    last_scan_at: float | None = None
    last_poll_at: float | None = None
    poll_success: bool = True


@dataclass(frozen=True, slots=True)
class Happening:
    """At that hour of the week, that happens to that software, on so many of the servers that have it."""

    hour: float
    kind: Kind
    software: str
    share: float
    risk: float = 9.8


STORY = (
    Happening(9, Kind.OUTDATED, "openssl", 0.7),
    Happening(33, Kind.MENDED, "openssl", 0.55),
    Happening(41, Kind.EXPLOITABLE, "nginx", 0.3, 7.5),
    Happening(52, Kind.MENDED, "nginx", 0.8),
    Happening(57, Kind.OUTDATED, "wordpress", 0.8),
    Happening(60, Kind.OUTDATED, "linux", 0.5),
    Happening(82, Kind.MENDED, "linux", 0.6),
    Happening(98, Kind.EXPLOITABLE, "php", 0.35, 9.8),
    Happening(100, Kind.MENDED, "php", 0.4),
    Happening(106, Kind.MENDED, "php", 0.6),
    Happening(122, Kind.UNSUPPORTED, "postgresql", 0.5),
    Happening(129, Kind.MENDED, "php", 0.8),
    Happening(130, Kind.MENDED, "wordpress", 0.6),
    Happening(148, Kind.OUTDATED, "npm/express", 0.6),
    Happening(154, Kind.EXPLOITABLE, "wordpress/contact-form-7", 0.3, 8.1),
    Happening(159, Kind.EXPLOITABLE, "wordpress/woocommerce", 0.5, 9.1),
    Happening(163, Kind.MENDED, "openssh", 0.9),
    Happening(165.5, Kind.EXPLOITABLE, "php", 0.25, 9.8),
)
API_OUT = (75 * HOUR, 75 * HOUR + 50 * 60)
RESTART = 115 * HOUR


@dataclass(slots=True)
class _Clock:
    """The week's own time, in seconds since the epoch."""

    at: float

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Week:
    """Plays it, step by step; the same on every run."""

    def __init__(self, end: int) -> None:
        """``end``: the last moment, in seconds since the epoch."""
        self.start = end - WEEK
        self._end = end
        self._chance = dice(SEED, "week")
        self._clock = _Clock(float(self.start))
        self._fleet = FleetExposition(
            software_enabled=True, software_limit_total=200_000, clock=self._clock, labels_of=_owner
        )
        self._summaries: dict[int, ServerSummary] = {}
        self._tallies = {severity: Tally(account=ACCOUNT, severity=severity) for severity in SEVERITIES}
        self._machine = Machine(ACCOUNT, self._chance, self.start - 9 * DAY, 412)
        self._list_at = float(self.start)
        self._servers = [self._new(index, self.start) for index in range(SERVERS) if index != LATE_COMER]
        self._story = list(STORY)

    def play(self) -> Iterator[tuple[int, str]]:
        """Each step's time and what a scrape would have read then."""
        for now in range(self.start, self._end + 1, STEP):
            self._clock.at = float(now)
            self._step(now, now - self.start)
            response = Scrape(self._fleet, self._machine.telemetry).render("text/plain", None)
            yield now, b"".join(response.body).decode()

    def _new(self, index: int, now: float) -> Watched:
        software = list(software_of(SEED, index, SOFTWARE))
        verified = index != UNVERIFIED
        server = Server(id=index + 1, name=server_name(index), verified=verified)
        watched = Watched(index, server, software, list(software))
        if verified:
            watched.last_scan_at = now - self._chance.uniform(0, DAY)
        self._poll(watched, now)
        # What is open at the beginning was not opened all at once; the tally of what came before stays as it is.
        watched.issues = tuple(
            replace(issue, first_seen=now - self._chance.lognormvariate(2.2, 1.1) * DAY) for issue in watched.issues
        )
        return watched

    def _step(self, now: int, since: int) -> None:
        broken = API_OUT[0] <= since < API_OUT[1]
        if since == RESTART:
            self._machine = Machine(ACCOUNT, self._chance, now - 20, self._machine.applied)
        if since == 64 * HOUR:
            self._servers.append(self._new(LATE_COMER, now))
        while self._story and self._story[0].hour * HOUR <= since:
            self._happen(self._story.pop(0))
        polled = 0
        for watched in self._servers:
            self._scan(watched, now, broken=broken)
            if (now // STEP + watched.index) % 3 == 0:
                polled += 1
                self._visit(watched, now, broken=broken)
            self._show(watched)
        self._account(now, polled, broken=broken)

    def _happen(self, happening: Happening) -> None:
        for watched in self._servers:
            for place, software in enumerate(watched.installed):
                if software.canonical_name == happening.software and self._chance.random() < happening.share:
                    watched.installed[place] = altered(software, happening.kind, risk=happening.risk)
                    if happening.kind is not Kind.MENDED:
                        # Somebody who publishes an exploit does not wait for the daily scan, and nor does PatrolServer.
                        watched.scanned = list(watched.installed)
                        self._machine.deliver("webhook.new_server_issues", twice=self._chance.random() < 0.2)

    def _scan(self, watched: Watched, now: int, *, broken: bool) -> None:
        """Once a day, each server at its own time; the three last ones are not reached from the fifth day on."""
        due = now % DAY // STEP == (watched.index * 11 + 31) % (DAY // STEP)
        if watched.scanning:
            watched.scanning, watched.last_scan_at = False, now - 60.0
            watched.scanned = list(watched.installed)
            self._machine.deliver("webhook.scan_finished")
        elif due and not broken and watched.server.verified and not self._lost(watched, now):
            watched.scanning = True
            self._machine.deliver("webhook.scan_started")

    def _lost(self, watched: Watched, now: int) -> bool:
        return watched.index == SERVERS - 3 and now - self.start > 4 * DAY

    def _visit(self, watched: Watched, now: int, *, broken: bool) -> None:
        self._machine.calls("software", 1, broken=broken)
        watched.poll_success = not broken
        if not broken:
            self._poll(watched, now - self._chance.uniform(0, 30))

    def _poll(self, watched: Watched, at: float) -> None:
        outcome = apply_poll(
            watched.issues,
            [_read(software) for software in watched.scanned],
            account=ACCOUNT,
            server_id=watched.server.id,
            started_at=at,
            exploit_risk=EXPLOIT_RISK,
            settle=0.0,
        )
        watched.issues = outcome.issues
        watched.last_poll_at = at
        for change in outcome.changes:
            self._count(change.kind, change.issue)

    def _count(self, kind: ChangeKind, issue: Issue) -> None:
        tally = self._tallies[issue.severity]
        if kind is ChangeKind.FIXED:
            took = (issue.fixed_at or 0.0) - issue.first_seen
            buckets = list(tally.buckets)
            buckets[fix_duration_bucket(took)] += 1
            tally = replace(
                tally,
                fixed=tally.fixed + 1,
                buckets=tuple(buckets),
                duration_sum=tally.duration_sum + took,
            )
        else:
            tally = replace(tally, opened=tally.opened + 1)
        self._tallies[issue.severity] = tally

    def _show(self, watched: Watched) -> None:
        summary = summarise(
            account=ACCOUNT,
            server=watched.server,
            software=[_read(software) for software in watched.scanned],
            issues=[_waived(issue, watched.server.name) for issue in watched.issues],
            exploit_risk=EXPLOIT_RISK,
            scanning=watched.scanning,
            last_scan_at=watched.last_scan_at,
            last_poll_at=watched.last_poll_at,
            poll_success=watched.poll_success,
        )
        self._summaries[summary.server_id] = summary
        self._fleet.update(summary)

    def _judged(self) -> Iterator[Judged]:
        """As the gate does it, where a policy allows no issues of some severities, and no software of unknown state."""
        for policy, forbidden in (("builtin", 1), ("production", 2)):
            found = Counter(_verdict(summary, forbidden) for summary in self._summaries.values())
            yield Judged(account=ACCOUNT, policy=policy, servers=found)

    def _account(self, now: int, polled: int, *, broken: bool) -> None:
        machine = self._machine
        machine.calls("servers", 1, broken=broken)
        machine.calls("event", polled // 3, broken=broken)
        machine.calls("is_scanning", polled // 4, broken=broken)
        machine.wait("retry", 3 if broken else 0, self.start + API_OUT[0])
        machine.live(now, STEP, polled)
        if self._chance.random() < 0.01:
            machine.knock()
        if not broken:
            self._list_at = now - 12.0
        series = AccountSeries(
            account=ACCOUNT,
            up=not broken,
            last_success_at=self._list_at,
            servers=len(self._servers),
            list_complete=True,
        )
        self._fleet.show_account(series)
        machine.judged = tuple(self._judged())
        self._fleet.show_tallies(self._tallies.values())


def _verdict(summary: ServerSummary, forbidden: int) -> Verdict:
    if any((summary.open_issues or ())[:forbidden]):
        return Verdict.FAIL
    unknown = summary.software is None or summary.software[STATES.index(State.UNKNOWN)]
    return Verdict.UNKNOWN if unknown else Verdict.PASS


def _owner(summary: ServerSummary) -> dict[str, str]:
    """The labels that a configuration might give: by the name's first word, and by its domain."""
    teams = {"web": "shop", "shop": "shop", "cms": "content", "app": "content", "db": "platform", "ci": "platform"}
    labels = {"environment": "staging" if ".staging." in summary.name else "production"}
    team = teams.get(summary.name.partition("-")[0])
    return labels if team is None else {**labels, "team": team}


def _read(software: simulated.Software) -> Software:
    """What the exporter reads of it."""
    return Software(
        name=software.name,
        canonical_name=software.canonical_name,
        version=software.version,
        candidates=software.candidates,
        supported=software.supported,
        newest_bugfix_release=software.newest_bugfix_release,
        parent=software.parent,
        location=software.location,
        exploits=tuple(Exploit(risk=one.risk, cve=one.cve, title=one.title) for one in software.exploits),
    )


def _waived(issue: Issue, server: str) -> Issue:
    """The laboratory's old Python is accepted, until somebody replaces it."""
    if fnmatch(server, "*.lab.example.org") and issue.canonical_name == "python":
        return replace(issue, waived_until=dt.date(2027, 1, 31), waived_reason="replaced with the laboratory")
    return issue
