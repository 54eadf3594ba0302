"""What the gate knows of the servers that it is asked about, read from one state of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from patrolserver_exporter.gate import evidence as known
from patrolserver_exporter.gate.evidence import Evidence, ServerEvidence, UnknownServer
from patrolserver_exporter.inbox import view
from patrolserver_exporter.issues.waive import waiver_for
from patrolserver_exporter.store import queries
from patrolserver_exporter.web.api import selection

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.gate.evidence import KnownServer
    from patrolserver_exporter.inbox.view import Doubts
    from patrolserver_exporter.issues.model import Issue, Waiver
    from patrolserver_exporter.store.queries import NamedServer
    from patrolserver_exporter.sync.accounts import AccountStatus
    from patrolserver_exporter.web.api.question import Question
    from patrolserver_exporter.web.api.selection import Selector


def gather(connection: sa.Connection, question: Question, statuses: Sequence[AccountStatus]) -> list[Evidence]:
    """The evidence on the servers that are asked for.

    All of it is one state of the store (see ``Store.read``), so that nothing moves on from the inbox to a server
    unseen. Accounts that nobody watches have no servers here.
    """
    doubts = view.doubts(connection)
    reachable = known.reachable_accounts(connection)
    listed = known.listed_accounts(connection)
    watched = {status.name: status for status in statuses}
    accounts = tuple(watched) if question.account is None else (question.account,)
    accounts = tuple(account for account in accounts if account in watched)
    found = selection.find(connection, question.selectors, accounts) if accounts else {}
    evidence: list[Evidence] = []
    keys: set[queries.ServerKey] = set()
    for selector in question.selectors:
        servers = found.get(selector, [])
        if selector.glob is not None:
            evidence += [
                UnknownServer(selector=selector.asked, account=account, never_listed=True)
                for account in accounts
                if account not in listed
            ]
        unknown = _unknown(selector, servers, question.account)
        if unknown is None:
            keys.update(server.key for server in servers)
        else:
            evidence.append(unknown)
    found_servers = known.known_servers(connection, keys)
    evidence += [_of(server, watched[server.account], reachable, doubts) for server in found_servers]
    missing = keys - {queries.ServerKey(server.account, server.server_id) for server in found_servers}
    evidence += [UnknownServer(selector=str(key.server_id), account=key.account) for key in sorted(missing)]
    return evidence


def _unknown(selector: Selector, servers: Sequence[NamedServer], account: str | None) -> UnknownServer | None:
    """Why the selector tells no server: there is none, or it is one's name or id in several accounts."""
    accounts = tuple(sorted({server.account for server in servers}))
    if not servers:
        return UnknownServer(selector=selector.asked, account=account)
    if selector.glob is None and len(accounts) > 1:
        return UnknownServer(selector=selector.asked, account=account, ambiguous_in=accounts)
    return None


def _of(server: KnownServer, status: AccountStatus, reachable: dict[str, bool], doubts: Doubts) -> ServerEvidence:
    state = server.state
    up = reachable.get(server.account, True)
    return ServerEvidence(
        account=server.account,
        server_id=server.server_id,
        name=server.name,
        last_poll_at=state.last_poll_at,
        poll_success=state.poll_success,
        poll_complete=state.complete_poll_at == state.last_poll_at,
        last_scan_at=state.last_scan_at,
        software=server.software,
        exploits_unknown=server.exploits_unknown,
        uncounted_risk=server.uncounted_risk,
        issues=server.issues,
        unconfirmed_event=(
            state.event_received_at is not None or doubts.concern(server.account, state.complete_poll_at)
        ),
        # Right after a start the state only tells that the last list call failed, and not why.
        account_refused=status.credentials_refused or not (up or status.judged),
        account_reachable=up,
    )


def without_stale_waivers(evidence: Iterable[Evidence], waivers: Sequence[Waiver], today: dt.date) -> list[Evidence]:
    """The evidence with those waivers taken off its issues that the configuration no longer holds up.

    The sweep that takes them off in the store may be late by a moment, and that moment must not let anything pass.
    """
    return [
        replace(one, issues=tuple(_still_waived(issue, one.name, waivers, today) for issue in one.issues))
        if isinstance(one, ServerEvidence)
        else one
        for one in evidence
    ]


def _still_waived(issue: Issue, server_name: str, waivers: Sequence[Waiver], today: dt.date) -> Issue:
    if not issue.waived or waiver_for(issue, server_name, waivers, today) is not None:
        return issue
    return replace(issue, waived_until=None, waived_reason=None)
