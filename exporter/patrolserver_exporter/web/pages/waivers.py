"""Waivers as a server's page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.issues.waive import concerns, covers, is_expired
from patrolserver_exporter.web.pages.words import counted

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from patrolserver_exporter.issues.model import Issue, Waiver


@dataclass(frozen=True, slots=True, kw_only=True)
class WaiverView:
    """A waiver of the configuration that is about this server."""

    software: str
    kind: str
    until: str
    reason: str
    effect: str


def waiver_views(
    waivers: Iterable[Waiver], server_name: str, open_issues: Sequence[Issue], today: dt.date
) -> tuple[WaiverView, ...]:
    """Show the configuration's waivers that are about the server, and what each does."""
    return tuple(
        WaiverView(
            software=waiver.software,
            kind="any" if waiver.kind is None else waiver.kind.value,
            until=waiver.until.isoformat(),
            reason=waiver.reason,
            effect=_effect(waiver, server_name, open_issues, today),
        )
        for waiver in waivers
        if concerns(waiver, server_name)
    )


def _effect(waiver: Waiver, server_name: str, open_issues: Sequence[Issue], today: dt.date) -> str:
    if is_expired(waiver, today):
        return "expired: covers nothing any more"
    covered = sum(covers(waiver, issue, server_name) for issue in open_issues)
    return f"covers {counted(covered, 'open issue')}" if covered else "covers nothing here now"
