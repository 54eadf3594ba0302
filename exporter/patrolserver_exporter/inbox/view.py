"""What the inbox holds: reading it, for people, for metrics and for the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.inbox.delivery import WAITING, Delivery, DeliveryState
from patrolserver_exporter.store.tables import accounts, inbox

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = tuple(inbox.c[name] for name in Delivery.__struct_fields__)


def read_delivery(row: Sequence[object]) -> Delivery:
    """A row of these columns as a delivery."""
    return msgspec.convert(dict(zip(Delivery.__struct_fields__, row, strict=True)), Delivery)


class StateCount(msgspec.Struct, frozen=True):
    """How many deliveries are in a state, and when the oldest of them was received."""

    state: str
    count: int
    oldest: float


def census(connection: sa.Connection) -> list[StateCount]:
    """The inbox by state, over all accounts."""
    rows = connection.execute(
        sa.select(inbox.c.state, sa.func.count(), sa.func.min(inbox.c.received_at)).group_by(inbox.c.state)
    )
    return [StateCount(state, count, oldest) for state, count, oldest in rows]


class InboxCount(msgspec.Struct, frozen=True):
    """Deliveries of one account in one state, and when the oldest was received (seconds since the epoch)."""

    account: str
    state: DeliveryState
    count: int
    oldest_at: float


def unfinished(connection: sa.Connection) -> tuple[InboxCount, ...]:
    """What waits and what is dead, by account."""
    rows = connection.execute(
        sa.select(inbox.c.account, inbox.c.state, sa.func.count(), sa.func.min(inbox.c.received_at))
        .where(inbox.c.state.in_([*WAITING, DeliveryState.DEAD]))
        .group_by(inbox.c.account, inbox.c.state)
        .order_by(inbox.c.account, inbox.c.state)
    )
    return tuple(InboxCount(account, DeliveryState(state), count, oldest) for account, state, count, oldest in rows)


class Doubts(msgspec.Struct, frozen=True):
    """What the inbox tells of accounts whose servers may be worse than the store knows."""

    waiting: frozenset[str]
    """Accounts with deliveries that nobody could look at yet."""
    catch_up_since: dict[str, float]
    """Since when deliveries of an account did not fit into the inbox, or could not be understood."""

    def concern(self, account: str, polled_at: float | None) -> bool:
        """Whether they concern a server that was last polled completely at that time."""
        if account in self.waiting:
            return True
        since = self.catch_up_since.get(account)
        return since is not None and (polled_at is None or polled_at < since)


def doubts(connection: sa.Connection) -> Doubts:
    """Which accounts are in doubt.

    Unverified deliveries do not count: PatrolServer said that it does not know the event, and a forged delivery must
    not hold up a deploy.
    """
    states = (DeliveryState.RECEIVED, DeliveryState.FETCHING, DeliveryState.RETRY, DeliveryState.BLOCKED)
    waiting = connection.execute(sa.select(inbox.c.account).where(inbox.c.state.in_(states)).distinct())
    flagged = connection.execute(
        sa.select(accounts.c.name, accounts.c.catch_up_since).where(accounts.c.catch_up_since.is_not(None))
    )
    # What a dead delivery was about, only a poll that started after its reception can tell.
    dead = connection.execute(
        sa.select(inbox.c.account, sa.func.max(inbox.c.received_at))
        .where(inbox.c.state == DeliveryState.DEAD)
        .group_by(inbox.c.account)
    )
    since: dict[str, float] = {}
    for account, at in (*flagged, *dead):
        since[account] = max(at, since.get(account, at))
    return Doubts(frozenset(row[0] for row in waiting), since)


def get(connection: sa.Connection, delivery_id: int) -> tuple[Delivery, bytes | None] | None:
    """One delivery and the body that could not be understood, if one was kept."""
    query = sa.select(*COLUMNS, inbox.c.body).where(inbox.c.id == delivery_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else (read_delivery(row[:-1]), row[-1])


def page(
    connection: sa.Connection, *, after: int, limit: int, states: Sequence[str] = (), accounts: Sequence[str] = ()
) -> list[Delivery]:
    """Deliveries with an id above ``after``, by id; of these states and accounts, where some are given."""
    query = sa.select(*COLUMNS).where(inbox.c.id > after).order_by(inbox.c.id).limit(limit)
    if states:
        query = query.where(inbox.c.state.in_(states))
    if accounts:
        query = query.where(inbox.c.account.in_(accounts))
    return [read_delivery(row) for row in connection.execute(query)]
