"""One server as its page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.model import SEVERITIES
from patrolserver_exporter.issues.waive import day_of
from patrolserver_exporter.web.pages.ages import maybe, moment
from patrolserver_exporter.web.pages.freshness import OLD
from patrolserver_exporter.web.pages.installed import software_groups
from patrolserver_exporter.web.pages.issuelist import HISTORY, history, issue_view
from patrolserver_exporter.web.pages.notices import Notice
from patrolserver_exporter.web.pages.waivers import waiver_views
from patrolserver_exporter.web.pages.words import listed, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.config.schema import Issues
    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.store.pages import ServerView
    from patrolserver_exporter.web.pages.ages import Moment
    from patrolserver_exporter.web.pages.installed import SoftwareGroup
    from patrolserver_exporter.web.pages.issuelist import Happening, IssueView
    from patrolserver_exporter.web.pages.waivers import WaiverView

ISSUES = 200
"""Open issues on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPage:
    """Everything on the page of a server."""

    name: str
    server_id: int
    account: str
    headline: str
    tone: str
    """Of the headline: ``bad``, ``warn``, ``good`` or ``unknown``."""
    notices: tuple[Notice, ...]
    verified: str
    polled: Moment | None
    next_poll: Moment | None
    scanning: bool
    last_scan: Moment | None
    issues: tuple[IssueView, ...]
    waived: tuple[IssueView, ...]
    issues_cut: int
    """Open issues that did not fit."""
    software: tuple[SoftwareGroup, ...] | None
    """``None`` until the first successful poll."""
    history: tuple[Happening, ...]
    history_is_cut: bool
    waivers: tuple[WaiverView, ...]


def server_page(view: ServerView, rules: Issues, now: float) -> ServerPage:
    """Show a server as the store has it and the rules judge it."""
    record, summary = view.record, view.record.summary
    found = tuple(_notices(view, now))
    text, tone = headline(summary, gone=record.gone_at is not None, doubtful=any(notice.bad for notice in found))
    return ServerPage(
        name=record.name.strip() or f"Server {record.server_id}",
        server_id=record.server_id,
        account=record.account,
        headline=text,
        tone=tone,
        notices=found,
        verified={None: "not known", True: "yes", False: "no"}[summary.verified],
        polled=maybe(summary.last_poll_at, now),
        next_poll=maybe(None if record.gone_at is not None else record.next_poll_at, now),
        scanning=summary.scanning,
        last_scan=maybe(summary.last_scan_at, now),
        issues=tuple(issue_view(issue, now) for issue in view.open_issues if not issue.waived),
        waived=tuple(issue_view(issue, now) for issue in view.open_issues if issue.waived),
        issues_cut=view.open_count - len(view.open_issues),
        software=None if view.software is None else software_groups(view.software, rules.exploit_risk),
        history=history(view.open_issues, view.fixed_issues, now),
        history_is_cut=view.open_count + 2 * view.fixed_count > HISTORY,
        waivers=waiver_views(rules.waivers, record.name, view.open_issues, day_of(now)),
    )


def headline(summary: ServerSummary, *, gone: bool, doubtful: bool) -> tuple[str, str]:
    """Say in one sentence how the server stands, and in which tone; ``doubtful`` data is never good news."""
    if gone:
        return "This server is no longer watched", "unknown"
    if summary.open_issues is None:
        return "Not polled yet, so nothing is known", "unknown"
    found = [
        f"{number(count)} {severity.value}"
        for severity, count in zip(SEVERITIES, summary.open_issues, strict=True)
        if count
    ]
    if not found:
        return (
            ("No open issue is known, but the data is not fresh", "unknown") if doubtful else ("No open issue", "good")
        )
    tone = "bad" if any(summary.open_issues[:2]) else "warn"
    total = sum(summary.open_issues)
    return f"{listed(found)} {'issue' if total == 1 else 'issues'}", tone


def _notices(view: ServerView, now: float) -> Iterator[Notice]:
    record, summary = view.record, view.record.summary
    if record.gone_at is not None:
        gone = moment(record.gone_at, now)
        yield Notice(
            f"The account no longer has this server since {gone.shown}, {gone.words}.",
            "It was removed at PatrolServer, or servers.include and servers.exclude leave it out. What was known of it "
            "is kept for as long as store.retention says.",
        )
        return
    if summary.last_poll_at is None:
        yield Notice(
            "No poll of this server succeeded yet.",
            "A new server is polled within one poll interval. If it lasts, the exporter's log tells why.",
            bad=False,
        )
    elif not summary.poll_success:
        yield Notice(
            f"The last poll failed; what is shown is from {moment(summary.last_poll_at, now).words}.",
            "It is polled again by itself. The exporter's log tells why it failed.",
        )
    elif now - summary.last_poll_at > OLD:
        yield Notice(
            "The data is older than 24 hours.",
            "The gate answers unknown for this server. See the health of its account on the fleet's page.",
        )
    if record.state.event_received_at is not None:
        yield Notice(
            f"PatrolServer reported new issues, or a scan ended, {moment(record.state.event_received_at, now).words}.",
            "New issues are shown already; a poll still has to confirm it, and until then the gate answers unknown.",
            bad=False,
        )
