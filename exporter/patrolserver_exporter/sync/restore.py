"""Units of work at start and at reload: from the store to the series."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.live.effects import FleetRestored, InboxMoved, ServerGone, ServerShown, Summaries
from patrolserver_exporter.store import fleet, history, replicas
from patrolserver_exporter.store.fleet import AccountRecord, ServerRecord, ServerState
from patrolserver_exporter.sync import account_updates, server_updates
from patrolserver_exporter.sync.clock_steps import follow_clock_but_servers, keep_up

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from patrolserver_exporter.config.schema import Metrics
    from patrolserver_exporter.store.threads import Unit
    from patrolserver_exporter.sync.rules import Rules

    Key = tuple[str, int]
    """Account and server id."""

RECLASSIFIED_AT_ONCE = 200
"""Servers that are classified again in one unit of work: a tenth of a second, in which no delivery can be taken in."""


class Planned(NamedTuple):
    """What of a server says when it is polled next."""

    server_id: int
    next_poll_at: float | None
    state: ServerState


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knew of the configured accounts."""

    accounts: dict[str, AccountRecord]
    servers: dict[str, list[Planned]]
    set_aside: int
    """Deliveries of other accounts, which nobody can look at now."""
    stale: tuple[Key, ...]
    """Servers that are left to be classified again, because the rules have changed since."""


def restore(unit: Unit, rules: Mapping[str, Rules], metrics: Metrics, *, now: float) -> Restored:
    """Show the configured accounts as the store has them; others that it knows are retired.

    Where ``rules`` are others than before, the first servers are classified by them, and the others are named as stale.
    """
    follow_clock_but_servers(unit, 0.0, now=now, rules=rules)
    names = tuple(rules)
    unit.effects.append(InboxMoved())
    set_aside = retire_others(unit, names, now=now)
    known = fleet.account_records(unit.connection)
    accounts = {
        name: account_updates.doubt_list(unit, known.get(name, AccountRecord(name=name)), rules[name]) for name in names
    }
    servers: dict[str, list[Planned]] = {name: [] for name in names}
    summaries, stale, classified = Summaries(), [], 0
    for name, of_account in rules.items():
        # One after the other: all servers of a large fleet together would take more memory than is ever needed again.
        for found in fleet.server_records(unit.connection, name, gone=True):
            record = keep_up(unit, found, 0.0, now=now, rules=of_account)
            if record.gone_at is not None:
                continue
            if is_stale(record, rules):
                if classified < RECLASSIFIED_AT_ONCE:
                    (record,) = _classified(unit, [record], rules, now)
                    classified += 1
                else:
                    stale.append((name, record.server_id))
            servers[name].append(Planned(record.server_id, record.next_poll_at, record.state))
            summaries.append(record.summary)
    tallies = [tally for name in names for tally in history.tallies_of(unit.connection, name)]
    unit.effects.append(
        FleetRestored(
            metrics,
            tuple((record, len(servers[name])) for name, record in accounts.items()),
            summaries,
            tuple(tallies),
            {name: rules[name].labels for name in names},
        )
    )
    return Restored(accounts=accounts, servers=servers, set_aside=set_aside, stale=tuple(stale))


def retire_others(unit: Unit, names: Collection[str], *, now: float) -> int:
    """Retire the accounts that nobody has configured any more; returns how many deliveries were set aside."""
    configured = replicas.configured_somewhere(unit.connection, names, now=now)
    for name in sorted(fleet.account_records(unit.connection).keys() - set(configured)):
        retire(unit, name, now=now)
    return deliveries.follow_accounts(unit, configured, now=now)


def retire(unit: Unit, account: str, *, now: float) -> None:
    """The account is no longer configured: its series end, and its servers are kept as gone for as long as retained."""
    records = list(fleet.server_records(unit.connection, account))
    fleet.save_servers(unit.connection, [replace(record, gone_at=now) for record in records])
    fleet.delete_account(unit.connection, account)
    unit.effects.extend(ServerGone(account, record.server_id) for record in records)


def reclassify(unit: Unit, keys: Iterable[Key], rules: Mapping[str, Rules], *, now: float) -> None:
    """Classify and count these servers again and show them, unless that has happened since."""
    found = [record for account, server_id in keys if (record := server_updates.find(unit, account, server_id))]
    for record in _classified(unit, [one for one in found if is_stale(one, rules)], rules, now):
        unit.effects.append(ServerShown(record.summary))


def is_stale(record: ServerRecord, rules: Mapping[str, Rules]) -> bool:
    """Whether what is known of a server was classified and counted by other rules."""
    return server_updates.has_other_settings(record, rules[record.account])


def _classified(
    unit: Unit, records: Iterable[ServerRecord], rules: Mapping[str, Rules], now: float
) -> list[ServerRecord]:
    classified = [server_updates.reclassify(unit, record, rules[record.account], now=now) for record in records]
    fleet.save_servers(unit.connection, classified)
    return classified
