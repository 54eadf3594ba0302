"""Units of work at start and at reload: from the store to the series."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.live.effects import (
    AccountRestored,
    FleetRestored,
    InboxMoved,
    ServerGone,
    ServerShown,
    Summaries,
)
from patrolserver_exporter.store import fleet, history
from patrolserver_exporter.store.fleet import AccountRecord, ServerRecord, ServerState
from patrolserver_exporter.sync import account_updates, server_updates
from patrolserver_exporter.sync.clock_steps import follow_clock_but_servers, keep_up

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Mapping

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
    names = tuple(rules)
    for name in sorted(fleet.account_records(unit.connection).keys() - set(names)):
        retire(unit, name, now=now)
    set_aside = deliveries.follow_accounts(unit, names, now=now)
    return restore_beside_others(unit, rules, tuple(rules), metrics, now=now, set_aside=set_aside)


def restore_beside_others(  # noqa: PLR0913  # What it shows, and when.
    unit: Unit, rules: Mapping[str, Rules], owned: Collection[str], metrics: Metrics, *, now: float, set_aside: int = 0
) -> Restored:
    """The same where other exporters poll some of the accounts: of those, nothing is written."""
    ours = {name: rules[name] for name in rules if name in owned}
    known, moved = _begin(unit, ours, now=now)
    accounts = dict(known)
    servers: dict[str, list[Planned]] = {name: [] for name in ours}
    summaries, reader, counts = Summaries(), _Reader(ours, now, moved), {}
    for name in rules:
        before = len(summaries)
        # One after the other: all servers of a large fleet together would take more memory than is ever needed again.
        for record in reader.servers(unit, name) if name in ours else fleet.server_records(unit.connection, name):
            if name in ours:
                servers[name].append(Planned(record.server_id, record.next_poll_at, record.state))
            summaries.append(record.summary)
        counts[name] = len(summaries) - before
        if name not in ours:
            accounts[name] = fleet.find_account(unit.connection, name) or AccountRecord(name=name)
    unit.effects.append(
        FleetRestored(
            metrics,
            tuple((accounts[name], counts[name]) for name in rules),
            summaries,
            tuple(tally for name in rules for tally in history.tallies_of(unit.connection, name)),
            {name: rules[name].labels for name in rules},
        )
    )
    return Restored(accounts=known, servers=servers, set_aside=set_aside, stale=tuple(reader.stale))


def take_over(unit: Unit, rules: Mapping[str, Rules], *, now: float) -> Restored:
    """Show these accounts, which another exporter polled until now, as the store has them; it is as after a restart."""
    known, moved = _begin(unit, rules, now=now)
    deliveries.take_up(unit, tuple(rules), now=now)
    servers: dict[str, list[Planned]] = {}
    reader = _Reader(rules, now, moved)
    for name in rules:
        shown, servers[name] = Summaries(), []
        for record in reader.servers(unit, name):
            servers[name].append(Planned(record.server_id, record.next_poll_at, record.state))
            shown.append(record.summary)
        tallies = tuple(history.tallies_of(unit.connection, name))
        unit.effects.append(AccountRestored(known[name], shown, tallies))
    return Restored(accounts=known, servers=servers, set_aside=0, stale=tuple(reader.stale))


def _begin(unit: Unit, rules: Mapping[str, Rules], *, now: float) -> tuple[dict[str, AccountRecord], frozenset[str]]:
    """The accounts, and which of them were read from another API before."""
    follow_clock_but_servers(unit, 0.0, now=now, rules=rules)
    unit.effects.append(InboxMoved())
    known = fleet.account_records(unit.connection)
    known = {name: known.get(name, AccountRecord(name=name)) for name in rules}
    moved = frozenset(name for name in rules if known[name].is_of_another_api(rules[name].source))
    return {name: account_updates.doubt_list(unit, known[name], rules[name]) for name in rules}, moved


class _Reader:
    """Reads servers from the store, to be polled by this process from now on."""

    def __init__(self, rules: Mapping[str, Rules], now: float, moved: Container[str]) -> None:
        """``moved``: accounts that were read from another API before."""
        self._rules = rules
        self._moved = moved
        self._now = now
        self._classified = 0
        self.stale: list[Key] = []
        """Those that are left to be classified again."""

    def servers(self, unit: Unit, name: str) -> Iterator[ServerRecord]:
        """An account's, but for those that are gone."""
        for found in fleet.server_records(unit.connection, name, gone=True):
            record = keep_up(unit, found, 0.0, now=self._now, rules=self._rules[name])
            if record.gone_at is not None:
                continue
            if name in self._moved:
                record = account_updates.doubt_server(unit, record, self._now)
            if is_stale(record, self._rules):
                if self._classified < RECLASSIFIED_AT_ONCE:
                    (record,) = _classified(unit, [record], self._rules, self._now)
                    self._classified += 1
                else:
                    self.stale.append((name, record.server_id))
            yield record


def retire(unit: Unit, account: str, *, now: float) -> None:
    """The account is no longer configured: its series end, and its servers are kept as gone for as long as retained."""
    records = list(fleet.server_records(unit.connection, account))
    fleet.save_servers(unit.connection, [replace(record, gone_at=now) for record in records])
    fleet.retire_account(unit.connection, account, now)
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
