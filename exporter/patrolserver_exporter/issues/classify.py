"""What an installed software amounts to: its state, what is wrong with it, its exploits, and how bad that is.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter.issues.model import SEVERITIES, Issue, IssueExploit, Kind, Severity, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patrolserver_exporter.patrolserver.models import Exploit, Software

    _Key = Callable[[Exploit | IssueExploit], object]


_KINDS = {State.OUTDATED: Kind.OUTDATED, State.UNSUPPORTED: Kind.UNSUPPORTED}


def state_of(software: Software) -> State:
    """How a software stands, worded as the vendor's own scanner does (C).

    Without a version, or while ``supported`` is missing, nobody knows: ``UNKNOWN``, never unsupported.
    """
    if software.shown_version is None or software.supported is None:
        return State.UNKNOWN
    if software.supported:
        return State.SUPPORTED
    return State.OUTDATED if software.newest_bugfix_release else State.UNSUPPORTED


def kind_of(software: Software) -> Kind | None:
    """What is wrong with its version: ``OUTDATED``, ``UNSUPPORTED``, or nothing that is known."""
    return _KINDS.get(state_of(software))


def counted_exploits(software: Software, exploit_risk: float) -> tuple[Exploit, ...]:
    """Its known exploits at or above ``exploit_risk``; empty too while the exploits are unknown.

    One whose risk nobody knows may be the worst, so it always counts.
    """
    return tuple(exploit for exploit in software.exploits or () if exploit.risk is None or exploit.risk >= exploit_risk)


def severity_of(kind: Kind, risk: float | None = None) -> Severity:
    """How severe an issue of that kind is; ``risk`` (0 to 10, ``None``: unknown) matters to ``EXPLOITABLE`` alone."""
    if kind is Kind.EXPLOITABLE:
        return severity_of_risk(risk)
    return Severity.MEDIUM if kind is Kind.OUTDATED else Severity.HIGH


def severity_of_risk(risk: float | None) -> Severity:
    """How severe an exploit of that risk is; one whose risk is unknown is high."""
    if risk is None:
        return Severity.HIGH
    if risk >= 9:
        return Severity.CRITICAL
    if risk >= 7:
        return Severity.HIGH
    return Severity.MEDIUM if risk >= 4 else Severity.LOW


def is_worse(severity: Severity, than: Severity) -> bool:
    """Whether one severity is above the other."""
    return SEVERITIES.index(severity) < SEVERITIES.index(than)


def worst(severities: Iterable[Severity]) -> Severity:
    """The worst of some severities, at least one."""
    return min(severities, key=SEVERITIES.index)


_WORST_RISK = 9.0
"""From this risk on an exploit is as bad as one of unknown risk may be."""


def known_risk(exploits: Iterable[Exploit | IssueExploit]) -> float | None:
    """The highest risk that is known; ``None`` if none is."""
    return max((exploit.risk for exploit in exploits if exploit.risk is not None), default=None)


def severity_of_exploits(exploits: Iterable[Exploit | IssueExploit]) -> Severity:
    """How severe the worst of them is; there is at least one."""
    return worst(severity_of_risk(exploit.risk) for exploit in exploits)


def counting(issue: Issue) -> tuple[IssueExploit, ...]:
    """Its exploits that no waiver covers; all of them where the whole issue is waived."""
    return tuple(exploit for exploit in issue.exploits if not exploit.waived) or issue.exploits


def full_severity(issue: Issue) -> Severity:
    """How severe it is when no waiver is asked."""
    return severity_of_exploits(issue.exploits) if issue.exploits else issue.severity


def weighed(issue: Issue) -> Issue:
    """The issue with the severity and the risk of those of its exploits that count."""
    if not issue.exploits:
        return issue
    counted = issue.exploits if issue.waived else counting(issue)
    return replace(issue, severity=severity_of_exploits(counted), risk=known_risk(counted))


def born(found: Iterable[Exploit], at: float) -> tuple[IssueExploit, ...]:
    """What a poll shows for the first time."""
    return followed((), found, at, keep=False)[0]


def followed(
    before: Sequence[IssueExploit], found: Iterable[Exploit], at: float, *, keep: bool
) -> tuple[tuple[IssueExploit, ...], bool]:
    """An issue's exploits after a poll, and whether one of them is new.

    They are distinguished by id or CVE, without both by title, and else by risk and number: one more of the same risk
    is new. What the poll does not show stays only if asked to ``keep`` it.
    """
    missing, fresh = list(before), list(found)
    shown: list[IssueExploit] = []
    for key in _KEYS:
        shown += _met(missing, fresh, key)
    made = [IssueExploit(id=one.id, cve=one.cve, title=one.title, risk=one.risk, first_seen=at) for one in fresh]
    after = (*shown, *made, *(missing if keep else ()))
    return tuple(sorted(after, key=lambda exploit: (order(exploit), exploit.first_seen))), bool(made)


def order(exploit: Exploit | IssueExploit) -> tuple[float, str, str, str]:
    """Sort key: the worst first, one of unknown risk before all."""
    risk = 11.0 if exploit.risk is None else exploit.risk
    return -risk, exploit.cve or "", exploit.id or "", exploit.title or ""


def _by_id(exploit: Exploit | IssueExploit) -> object:
    return exploit.id


def _by_cve(exploit: Exploit | IssueExploit) -> object:
    return exploit.cve


def _by_title(exploit: Exploit | IssueExploit) -> object:
    return None if exploit.id or exploit.cve else exploit.title


def _by_risk(exploit: Exploit | IssueExploit) -> object:
    return None if exploit.id or exploit.cve or exploit.title else (exploit.risk,)


def _and_risk(key: _Key) -> _Key:
    def both(exploit: Exploit | IssueExploit) -> object:
        name = key(exploit)
        return None if name is None else (name, exploit.risk)

    return both


# Where one name stands for several, those of the same risk are the same.
_KEYS = (_and_risk(_by_id), _by_id, _and_risk(_by_cve), _by_cve, _and_risk(_by_title), _by_title, _by_risk)


def _met(missing: list[IssueExploit], fresh: list[Exploit], key: _Key) -> list[IssueExploit]:
    """Take out of both lists what is the same by that key, as it is after the poll."""
    waiting: dict[object, list[IssueExploit]] = defaultdict(list)
    for old in missing:
        if (name := key(old)) is not None:
            waiting[name].append(old)
    if not waiting:
        return []
    met: list[IssueExploit] = []
    taken: set[int] = set()
    left: list[Exploit] = []
    for new in fresh:
        others = waiting.get(key(new), [])
        # Two entries of one CVE that the vendor numbers are two, and so are two CVEs under one number.
        place = next((place for place, old in enumerate(others) if not _named_apart(old, new)), None)
        if place is None:
            left.append(new)
        else:
            same = others.pop(place)
            taken.add(id(same))
            met.append(_seen_again(same, new))
    missing[:] = [old for old in missing if id(old) not in taken]
    fresh[:] = left
    return met


def _named_apart(old: IssueExploit, new: Exploit) -> bool:
    names = ((old.id, new.id), (old.cve, new.cve))
    return any(was is not None and now is not None and was != now for was, now in names)


def _seen_again(old: IssueExploit, new: Exploit) -> IssueExploit:
    risk = new.risk
    if risk is None and old.risk is not None and old.risk >= _WORST_RISK:
        # That nobody can read it any more makes it no better.
        risk = old.risk
    return replace(old, id=new.id or old.id, cve=new.cve or old.cve, title=new.title or old.title, risk=risk)
