"""Which finding of a poll is what an event reported before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patrolserver_exporter.issues.derive import Finding
    from patrolserver_exporter.issues.model import Identity, Issue

_Rank = tuple[bool, bool, tuple[str, str, bool, bool], str]


def takeovers(
    issues: Sequence[Issue], findings: Sequence[Finding], closed_seats: frozenset[Identity]
) -> dict[Identity, Issue]:
    """The open, so far only reported issue that each finding takes over, by the finding's identity.

    A finding of the same software takes it over: at best the one with the same identity, else one at the same
    location, else the first by location. Each issue is taken over once, and so is no finding whose identity is in
    ``closed_seats``.
    """
    reported = [issue for issue in issues if issue.is_open and not issue.polled]
    free = [finding for finding in findings if finding.identity not in closed_seats]
    taken: dict[Identity, Issue] = {}
    settled: set[str] = set()
    for _, finding, issue in sorted(_pairs(reported, free), key=lambda pair: pair[0]):
        if finding.identity not in taken and issue.fingerprint not in settled:
            taken[finding.identity] = issue
            settled.add(issue.fingerprint)
    return taken


def _pairs(reported: Sequence[Issue], findings: Sequence[Finding]) -> Iterator[tuple[_Rank, Finding, Issue]]:
    by_name: dict[str, list[Finding]] = {}
    for finding in findings:
        by_name.setdefault(finding.canonical_name, []).append(finding)
    for issue in reported:
        for finding in by_name.get(issue.canonical_name, ()):
            rank = (
                finding.identity != issue.identity,
                finding.location != issue.location,
                finding.identity.order,
                issue.fingerprint,
            )
            yield rank, finding, issue
