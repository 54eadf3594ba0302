"""What is kept for how long. Every purge is bounded, so that it never holds up a delivery for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from patrolserver_exporter.store.delivery import DeliveryState
from patrolserver_exporter.store.schema import changes, inbox, issues, servers

if TYPE_CHECKING:
    from patrolserver_exporter.store.unit import Unit

REJECTED_FOR = 3600.0
"""Seconds: a forged delivery must not live for 30 days, only long enough to be looked at."""

AT_ONCE = 1000
"""Rows of each kind that go in one purge, at most."""


def purge(unit: Unit, *, now: float, retention: float, limit: int = AT_ONCE) -> int:
    """Remove what is older than ``retention`` seconds, at most ``limit`` rows of each kind; returns how many went.

    Deliveries that wait are never purged, and neither is the newest change: its id is where the feed stands. Changes
    go from the oldest on and leave no gap, for a reader could not tell one: a change may be dated before others that
    came in before it, because its event was confirmed late.
    """
    before = now - retention
    ended = (DeliveryState.APPLIED, DeliveryState.EXPIRED, DeliveryState.DEAD)
    newest = sa.select(sa.func.max(changes.c.id)).scalar_subquery()
    kept = sa.select(sa.func.min(changes.c.id)).where(changes.c.at >= before).scalar_subquery()
    doomed = (
        (inbox, sa.and_(inbox.c.state == DeliveryState.REJECTED, inbox.c.updated_at < now - REJECTED_FOR)),
        (inbox, sa.and_(inbox.c.state.in_(ended), inbox.c.updated_at < before)),
        (issues, issues.c.fixed_at < before),
        (changes, changes.c.id < sa.func.coalesce(kept, newest)),
    )
    gone = 0
    for table, condition in doomed:
        ids = sa.select(table.c.id).where(condition).order_by(table.c.id).limit(limit)
        gone += unit.connection.execute(table.delete().where(table.c.id.in_(ids))).rowcount
    return gone + _purge_gone_servers(unit, before, limit)


def _purge_gone_servers(unit: Unit, before: float, limit: int) -> int:
    keys = unit.connection.execute(
        sa.select(servers.c.account, servers.c.server_id).where(servers.c.gone_at < before).limit(limit)
    ).all()
    for account, server_id in keys:
        for table in (issues, servers):
            unit.connection.execute(table.delete().where(table.c.account == account, table.c.server_id == server_id))
    return len(keys)
