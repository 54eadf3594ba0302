"""How deliveries move on in the inbox: every change of their state after the intake."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.inbox.delivery import DUE, WAITING, Delivery, DeliveryState
from patrolserver_exporter.inbox.view import COLUMNS, get, read_delivery
from patrolserver_exporter.store.errors import ClaimLost
from patrolserver_exporter.store.tables import inbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.store.writer import Unit

LONGEST_WAIT = 24 * 3600.0
"""Seconds to a delivery's next attempt, at most."""

NOT_CONFIGURED = "The account is not in the configuration any more; once it is there again, the event is fetched."
"""The error of deliveries that were set aside."""

LONGEST_LEASE = 3600.0
"""Seconds that a claim is valid, at most."""


def claim(unit: Unit, account: str, *, now: float, lease: float, limit: int) -> list[Delivery]:
    """Take up to ``limit`` due deliveries of an account: those never tried go first.

    Each gets a fresh claim that fences later writes, valid for ``lease`` seconds. A claim that ran out is due again.
    """
    due = sa.or_(
        sa.and_(inbox.c.state.in_(DUE), sa.or_(inbox.c.next_attempt_at.is_(None), inbox.c.next_attempt_at <= now)),
        sa.and_(inbox.c.state == DeliveryState.FETCHING, inbox.c.lease_until <= now),
    )
    query = (
        sa.select(*COLUMNS)
        .where(inbox.c.account == account, due)
        .order_by(inbox.c.attempts > 0, inbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = []
    for row in unit.connection.execute(query).all():
        token = secrets.token_hex(8)
        unit.connection.execute(
            inbox.update()
            .where(inbox.c.id == row.id)
            .values(state=DeliveryState.FETCHING, claim=token, lease_until=now + lease, updated_at=now)
        )
        taken.append(msgspec.structs.replace(read_delivery(row), state=DeliveryState.FETCHING, claim=token))
    return taken


def settle(  # noqa: PLR0913  # A transition is made of just these.
    unit: Unit,
    delivery: Delivery,
    state: DeliveryState,
    *,
    now: float,
    attempts: int | None = None,
    next_attempt_at: float | None = None,
    server_id: int | None = None,
    error: str | None = None,
    body: bytes | None = None,
) -> None:
    """Move a claimed delivery on; ``ClaimLost`` if the claim is not ours any more, and then nothing is written."""
    done = unit.connection.execute(
        inbox.update()
        .where(inbox.c.id == delivery.id, inbox.c.claim == delivery.claim, inbox.c.state == DeliveryState.FETCHING)
        .values(
            state=state,
            claim=None,
            lease_until=None,
            updated_at=now,
            attempts=delivery.attempts if attempts is None else attempts,
            next_attempt_at=next_attempt_at,
            server_id=server_id,
            last_error=error,
            body=body,
        )
    )
    if done.rowcount != 1:
        raise ClaimLost(f"Delivery {delivery.id} was taken over while its event was being fetched.")


def let_go(unit: Unit, delivery: Delivery) -> None:
    """Give a claim up that came to nothing: the delivery is due again, unless the claim is not ours any more."""
    _release(unit, inbox.c.id == delivery.id, inbox.c.claim == delivery.claim)


def release_claims(unit: Unit) -> int:
    """After a restart of the only process: what was being fetched is due again. Returns how many."""
    return _release(unit)


def _release(unit: Unit, *which: sa.ColumnElement[bool]) -> int:
    return unit.connection.execute(
        inbox.update()
        .where(inbox.c.state == DeliveryState.FETCHING, *which)
        .values(state=DeliveryState.RECEIVED, claim=None, lease_until=None)
    ).rowcount


def hasten(unit: Unit, account: str) -> int:
    """The account's API answers again: what was blocked or waits for its next try is due now. Returns how many."""
    return _make_due(unit, account, (DeliveryState.BLOCKED, DeliveryState.RETRY))


def unblock(unit: Unit, account: str) -> int:
    """The account's credentials are good: what was blocked is due now. Returns how many."""
    return _make_due(unit, account, (DeliveryState.BLOCKED,))


def _make_due(unit: Unit, account: str, states: Sequence[DeliveryState]) -> int:
    return unit.connection.execute(
        inbox.update()
        .where(inbox.c.state.in_(states), inbox.c.account == account)
        .values(state=DeliveryState.RETRY, next_attempt_at=None)
    ).rowcount


def follow_accounts(unit: Unit, configured: Sequence[str], *, now: float) -> int:
    """Set aside what waits for accounts that are not configured, and take up what was set aside of those that are.

    Nobody can look at the former; it must neither fill the inbox nor seem to be late, and ends as expired. Returns how
    many were set aside.
    """
    unit.connection.execute(
        inbox.update()
        .where(
            inbox.c.account.in_(configured),
            inbox.c.state == DeliveryState.EXPIRED,
            inbox.c.last_error == NOT_CONFIGURED,
        )
        .values(state=DeliveryState.RECEIVED, last_error=None, updated_at=now)
    )
    return unit.connection.execute(
        inbox.update()
        .where(inbox.c.account.not_in(configured), inbox.c.state.in_(WAITING))
        .values(
            state=DeliveryState.EXPIRED,
            claim=None,
            lease_until=None,
            next_attempt_at=None,
            last_error=NOT_CONFIGURED,
            updated_at=now,
        )
    ).rowcount


def shift_times(unit: Unit, seconds: float, *, now: float) -> None:
    """The system's clock was set by so much: timers and leases go along, so that none fires early or never.

    Nothing was received in the future, so a reception that seems to be is taken for one of now. Nothing waits for
    longer than `LONGEST_WAIT`: what seems to was planned before the clock was set back while nobody looked.
    """
    unit.connection.execute(inbox.update().where(inbox.c.received_at > now).values(received_at=now))
    for column, longest in ((inbox.c.next_attempt_at, LONGEST_WAIT), (inbox.c.lease_until, LONGEST_LEASE)):
        shifted = column + seconds
        bounded = sa.case((shifted > now + longest, now + longest), else_=shifted)
        unit.connection.execute(inbox.update().where(column.is_not(None)).values({column: bounded}))


def replay(unit: Unit, delivery_id: int, *, now: float) -> Delivery | None:
    """Make a delivery due again with its attempts forgotten, whatever its state; idempotent.

    It takes effect as of its reception, so replaying one that was applied changes nothing that is newer.
    """
    unit.connection.execute(
        inbox.update()
        .where(inbox.c.id == delivery_id, inbox.c.state != DeliveryState.FETCHING)
        .values(
            state=DeliveryState.RECEIVED,
            attempts=0,
            next_attempt_at=None,
            last_error=None,
            body=None,
            updated_at=now,
        )
    )
    found = get(unit.connection, delivery_id)
    return found[0] if found else None


def drop(unit: Unit, delivery_id: int) -> bool:
    """Remove a delivery; False if there is none."""
    return unit.connection.execute(inbox.delete().where(inbox.c.id == delivery_id)).rowcount == 1
