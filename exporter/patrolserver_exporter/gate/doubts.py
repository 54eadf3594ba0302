"""Why the data of a server, or a server that is not known, is no ground for a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.gate.telling import spoken
from patrolserver_exporter.gate.verdict import Reason, ReasonCode
from patrolserver_exporter.issues.model import STATES, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patrolserver_exporter.gate.evidence import ServerEvidence, UnknownServer
    from patrolserver_exporter.gate.policy import Policy

CLOCK_TOLERANCE = 300.0
"""Seconds that a time may lie in the future, because clocks differ."""
_Doubt = tuple[ReasonCode, str]


def doubts(
    evidence: ServerEvidence, policy: Policy, now: float, *, exploit_risk: float | None = None
) -> tuple[Reason, ...]:
    """All that keeps the server's verdict ``unknown``, and then what is only worth knowing."""
    blocking = (
        *_of_poll(evidence, policy, now),
        *_of_content(evidence, policy, exploit_risk),
        *_of_scan(evidence, policy, now),
    )
    return tuple(
        Reason(
            code=code,
            message=f"{evidence.name}: {message}",
            blocking=blocks,
            account=evidence.account,
            server_id=evidence.server_id,
            server=evidence.name,
        )
        for found, blocks in ((blocking, True), (tuple(_notes(evidence)), False))
        for code, message in found
    )


_SHOWN_ACCOUNTS = 10


def doubt_of_unknown(unknown: UnknownServer) -> Reason:
    """The doubt about a server that was asked for and is not known."""
    where = "" if unknown.account is None else f" in account {unknown.account}"
    if unknown.refused:
        code = ReasonCode.CREDENTIALS_REFUSED
        message = (
            f"{unknown.selector}: PatrolServer refuses the credentials of account {unknown.account}, so nobody knows "
            "which servers it has; renew its key and secret."
        )
    elif unknown.listed_at is not None:
        code = ReasonCode.LIST_INCOMPLETE
        message = (
            f"{unknown.selector}: the last server list{where} is older than max_age, so nobody knows which servers "
            "there are besides; see the log for why no newer one could be read, or ask by id or name."
        )
    elif unknown.list_incomplete is not None:
        code = ReasonCode.LIST_INCOMPLETE
        message = (
            f"{unknown.selector}: the last server list{where} was not whole ({unknown.list_incomplete}), so nobody "
            "knows which servers there are besides; wait for a whole list, or ask by id or name."
        )
    elif unknown.ambiguous_in:
        code = ReasonCode.AMBIGUOUS_SERVER
        message = (
            f"{unknown.selector}: {len(unknown.ambiguous_in)} accounts have such a server "
            f"({', '.join(sorted(unknown.ambiguous_in))}); say which account, or ask by id."
        )
    elif unknown.never_listed:
        code = ReasonCode.NEVER_LISTED
        message = (
            f"{unknown.selector}: the server list{where} was never read, so nobody knows which servers it has; "
            "wait for the first list, or say which account."
        )
    elif unknown.not_among:
        code = ReasonCode.UNKNOWN_SERVER
        more = len(unknown.not_among) - _SHOWN_ACCOUNTS
        there = ", ".join(sorted(unknown.not_among)[:_SHOWN_ACCOUNTS]) + (f" and {more} more" if more > 0 else "")
        message = f"{unknown.selector}: there is no account {unknown.account}; there are: {there}."
    else:
        code = ReasonCode.UNKNOWN_SERVER
        message = (
            f"{unknown.selector}: no such server is watched{where}; check the name, that PatrolServer has it, "
            "and the account's include and exclude lists."
        )
    return Reason(code=code, message=message, blocking=True, account=unknown.account, server=unknown.selector)


def _of_poll(evidence: ServerEvidence, policy: Policy, now: float) -> Iterator[_Doubt]:
    if evidence.account_refused:
        yield (
            ReasonCode.CREDENTIALS_REFUSED,
            f"PatrolServer refuses the credentials of account {evidence.account}; renew its key and secret.",
        )
    if evidence.last_poll_at is None or evidence.software is None:
        yield ReasonCode.NEVER_POLLED, "it was never polled with success; wait for the first poll, or refresh it."
        return
    age = now - evidence.last_poll_at
    if age < -CLOCK_TOLERANCE:
        yield (
            ReasonCode.POLL_IN_FUTURE,
            f"its last successful poll lies {spoken(-age)} in the future; check the clocks and refresh it.",
        )
    elif not age <= policy.max_age:
        yield (
            ReasonCode.DATA_TOO_OLD,
            f"its last successful poll is {spoken(age)} old, and max_age allows {spoken(policy.max_age)}; refresh it.",
        )
    if evidence.identity_in_doubt:
        yield (
            ReasonCode.IDENTITY_IN_DOUBT,
            (
                "it has another name than before, came back, or is read from another API (api_url) or with another "
                "key, and no whole poll or list has shown since that it is the same, so what is known may be another "
                "server's; ask again in a minute, refresh it, or give all exporters on the database the same key."
            ),
        )
    if evidence.missing_from_list:
        yield (
            ReasonCode.MISSING_FROM_LIST,
            (
                f"the last server list of account {evidence.account} lacked it, or called it by two names, and waits "
                "to be confirmed by another one; ask again in some minutes."
            ),
        )
    if evidence.empty and not policy.allow_empty:
        yield (
            ReasonCode.NO_SOFTWARE,
            (
                "PatrolServer lists no software of it, so nothing was looked at; have it scanned, or set allow_empty "
                "(--allow-empty on the command line) if it really has none."
            ),
        )
    # What the server list says of it counts for one without software, too.
    if evidence.incomplete_because is not None or not (evidence.poll_complete or evidence.empty):
        why = evidence.incomplete_because or "it had entries that could not be read"
        yield (
            ReasonCode.POLL_INCOMPLETE,
            f"its last successful poll was not whole ({why}); look into the log, and refresh it.",
        )


def _of_content(evidence: ServerEvidence, policy: Policy, exploit_risk: float | None) -> Iterator[_Doubt]:
    allowed = f"max_unknown_software allows {policy.max_unknown_software}; have it scanned again, or allow more"
    unknown = 0 if evidence.software is None else evidence.software[STATES.index(State.UNKNOWN)]
    if unknown > policy.max_unknown_software:
        yield ReasonCode.SOFTWARE_UNKNOWN, f"the state of {unknown} of its software is unknown, and {allowed}."
    if evidence.exploits_unknown > policy.max_unknown_software:
        unknown = evidence.exploits_unknown
        yield ReasonCode.EXPLOITS_UNKNOWN, f"the exploits of {unknown} of its software are unknown, and {allowed}."
    risk_allowed = f"max_risk allows {policy.max_risk}; update the software, or lower issues.exploit_risk to waive it"
    if policy.max_risk is not None and not evidence.uncounted_risk <= policy.max_risk:
        yield (
            ReasonCode.EXPLOIT_UNCOUNTED,
            f"its worst exploit that is no issue has a risk of {evidence.uncounted_risk:g}, and {risk_allowed}.",
        )
    elif exploit_risk is not None and evidence.uncounted_risk >= exploit_risk:
        yield (
            ReasonCode.EXPLOIT_UNCOUNTED,
            (
                f"it has an exploit with a risk of {evidence.uncounted_risk:g}, which issues.exploit_risk counts only "
                "since the configuration changed, and is not judged again yet; ask again in some minutes."
            ),
        )
    reported = sum(issue.is_open and not issue.polled for issue in evidence.issues)
    if evidence.unconfirmed_event or reported:
        of_events = f"{reported} of its issues are only reported by an event and wait for a poll to confirm it"
        # Also after a restored state and an inbox that was full: all servers have to be polled once.
        other = "an event may be about it, or the state was restored, and no whole poll of it has started since"
        what = of_events if reported else other
        yield ReasonCode.EVENT_UNCONFIRMED, f"{what}; ask again in some minutes, or refresh it."


def _of_scan(evidence: ServerEvidence, policy: Policy, now: float) -> Iterator[_Doubt]:
    if policy.max_scan_age is None:
        return
    allowed = f"max_scan_age allows {spoken(policy.max_scan_age)}"
    if evidence.last_scan_at is None:
        yield ReasonCode.SCAN_NEVER_SEEN, f"no scan of it was seen yet, and {allowed}; start a scan."
        return
    age = now - evidence.last_scan_at
    if age < -CLOCK_TOLERANCE:
        yield (
            ReasonCode.SCAN_IN_FUTURE,
            f"its last scan lies {spoken(-age)} in the future; check the clocks and start a scan.",
        )
    elif not age <= policy.max_scan_age:
        yield ReasonCode.SCAN_TOO_OLD, f"its last scan is {spoken(age)} old, and {allowed}; start a scan."


def _notes(evidence: ServerEvidence) -> Iterator[_Doubt]:
    if not evidence.poll_success and evidence.last_poll_at is not None:
        yield ReasonCode.POLL_FAILED, "its last poll failed, so this rests on the last one that succeeded."
    if not evidence.account_reachable:
        yield (
            ReasonCode.ACCOUNT_UNREACHABLE,
            f"the last call for the server list of account {evidence.account} failed; see the log for the cause.",
        )
