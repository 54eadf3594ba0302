"""A webhook delivery, from its reception to its end: its states, their changes after the intake, and reading them.

```
received → fetching (claim, lease) → applied
              ├→ retry       time-out, 5xx, 429, unreadable: again at next_attempt_at
              ├→ unverified  404: three tries, then rejected, which is soon purged
              ├→ blocked     credentials refused: waits for new ones, burns no attempt
              ├→ expired     30 days old, and a last try failed; or its account is not configured
              └→ dead        a reply that cannot be understood or applied; its body is kept for the operator
```
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from patrolserver_exporter.store.errors import ClaimLost
from patrolserver_exporter.store.tables import catch_ups, inbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.store.threads import Unit


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    RECEIVED = "received"
    FETCHING = "fetching"
    RETRY = "retry"
    UNVERIFIED = "unverified"
    BLOCKED = "blocked"
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DEAD = "dead"


WAITING = (
    DeliveryState.RECEIVED,
    DeliveryState.FETCHING,
    DeliveryState.RETRY,
    DeliveryState.UNVERIFIED,
    DeliveryState.BLOCKED,
)
"""States that still fill the inbox."""

DUE = (DeliveryState.RECEIVED, DeliveryState.RETRY, DeliveryState.UNVERIFIED)
"""States in which a worker may take a delivery."""


class NewDelivery(msgspec.Struct, frozen=True):
    """What a webhook brought. Ids are 1 to 2⁵³−1."""

    account: str
    webhook_id: int
    event_id: int
    identifier: str
    received_at: float


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the inbox."""

    id: int
    account: str
    webhook_id: int
    event_id: int
    identifier: str
    state: DeliveryState
    attempts: int
    received_at: float
    updated_at: float
    next_attempt_at: float | None = None
    claim: str | None = None
    server_id: int | None = None
    last_error: str | None = None


class Acceptance(StrEnum):
    """What became of a delivery when it was received; each is answered with a 202."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    OVERFLOW = "overflow"
    """The inbox is full: a catch-up poll, noted durably, takes its place."""


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


_KNOWN_STATES = frozenset(DeliveryState)
_FIRST_STATE = sa.select(sa.func.min(inbox.c.state).label("state")).cte("found", recursive=True)
_STATES = _FIRST_STATE.union_all(
    sa.select(
        sa.select(sa.func.min(inbox.c.state)).where(inbox.c.state > _FIRST_STATE.c.state).scalar_subquery()
    ).where(_FIRST_STATE.c.state.is_not(None))
)
"""From one to the next by the index: to look at each delivery would take long."""


def _unknown_states(connection: sa.Connection) -> tuple[str, ...]:
    """States of deliveries that a newer version has written, and nobody here knows."""
    states = connection.execute(sa.select(_STATES.c.state).where(_STATES.c.state.is_not(None))).scalars()
    return tuple(state for state in states if state not in _KNOWN_STATES)


def unknown_states(connection: sa.Connection) -> dict[str, int]:
    """How many deliveries are in each of these."""
    states = _unknown_states(connection)
    if not states:
        return {}
    query = sa.select(inbox.c.state, sa.func.count()).where(inbox.c.state.in_(states)).group_by(inbox.c.state)
    return {row.state: row[1] for row in connection.execute(query.order_by(inbox.c.state))}


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


def doubts(connection: sa.Connection, *, received_before: float | None = None) -> Doubts:
    """Which accounts are in doubt; with a time, by what waits, only where something has waited since before that.

    Unverified deliveries do not count: PatrolServer said that it does not know the event, and a forged delivery must
    not hold up a deploy. Those in a state that nobody here knows do.
    """
    known = (DeliveryState.RECEIVED, DeliveryState.FETCHING, DeliveryState.RETRY, DeliveryState.BLOCKED)
    states = (*known, *_unknown_states(connection))
    query = sa.select(inbox.c.account).where(inbox.c.state.in_(states)).distinct()
    if received_before is not None:
        query = query.where(inbox.c.received_at < received_before)
    waiting = connection.execute(query)
    flagged = connection.execute(sa.select(catch_ups.c.account, catch_ups.c.since))
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
    return None if row is None or row.state not in _KNOWN_STATES else (read_delivery(row[:-1]), row[-1])


def page(
    connection: sa.Connection, *, after: int, limit: int, states: Sequence[str] = (), accounts: Sequence[str] = ()
) -> list[Delivery]:
    """Deliveries with an id above ``after``, by id; of these states and accounts, where some are given."""
    query = sa.select(*COLUMNS).where(inbox.c.id > after).order_by(inbox.c.id).limit(limit)
    if unknown := () if states else _unknown_states(connection):
        query = query.where(inbox.c.state.not_in(unknown))
    if states:
        query = query.where(inbox.c.state.in_(states))
    if accounts:
        query = query.where(inbox.c.account.in_(accounts))
    return [read_delivery(row) for row in connection.execute(query)]


LONGEST_WAIT = 24 * 3600.0
"""Seconds to a delivery's next attempt, at most."""

NOT_CONFIGURED = "The account is not in the configuration any more; once it is there again, the event is fetched."
"""The error of deliveries that were set aside."""

LONGEST_LEASE = 3600.0
"""Seconds that a claim is valid, at most."""


def _is_due(now: float) -> sa.ColumnElement[bool]:
    """Those that may be claimed; a claim that ran out is due again."""
    return sa.or_(
        sa.and_(inbox.c.state.in_(DUE), sa.or_(inbox.c.next_attempt_at.is_(None), inbox.c.next_attempt_at <= now)),
        sa.and_(inbox.c.state == DeliveryState.FETCHING, inbox.c.lease_until <= now),
    )


def due_accounts(connection: sa.Connection, *, now: float) -> list[str]:
    """Accounts with deliveries that may be claimed now."""
    return list(connection.execute(sa.select(inbox.c.account).where(_is_due(now)).distinct()).scalars())


def claim(unit: Unit, account: str, *, now: float, lease: float, limit: int) -> list[Delivery]:
    """Take up to ``limit`` due deliveries of an account: those never tried go first.

    Each gets a fresh claim that fences later writes, valid for ``lease`` seconds. A claim that ran out is due again.
    """
    query = (
        sa.select(*COLUMNS)
        .where(inbox.c.account == account, _is_due(now))
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


def end_try(  # noqa: PLR0913  # A transition is made of just these.
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
    """End the try of a claimed delivery. ``ClaimLost`` if the claim is not ours any more; then nothing is written."""
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


def take_up(unit: Unit, accounts: Sequence[str], *, now: float) -> int:
    """Nobody else works on these accounts any more: what was being fetched, or set aside, is due. Returns how many."""
    return _release(unit, inbox.c.account.in_(accounts)) + _bring_back(unit, accounts, now=now)


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


# Built once: each list that is read asks, and building it costs more than running it.
_MAKE_DUE = (
    inbox.update()
    .where(inbox.c.state.in_(sa.bindparam("states", expanding=True)), inbox.c.account == sa.bindparam("of_account"))
    .values(state=DeliveryState.RETRY, next_attempt_at=None)
)


def _make_due(unit: Unit, account: str, states: Sequence[DeliveryState]) -> int:
    return unit.connection.execute(_MAKE_DUE, {"states": states, "of_account": account}).rowcount


def follow_accounts(unit: Unit, configured: Sequence[str], *, now: float) -> int:
    """Set deliveries aside whose account is not configured, and make them due again if it is.

    Nobody can look at the former; it must neither fill the inbox nor seem to be late, and ends as expired. Returns how
    many were set aside.
    """
    _bring_back(unit, configured, now=now)
    return _set_aside(unit, inbox.c.account.not_in(configured), now=now)


def set_aside(unit: Unit, account: str, *, now: float) -> int:
    """The account is not configured any more: its deliveries that wait are set aside. Returns how many."""
    return _set_aside(unit, inbox.c.account == account, now=now)


def set_one_aside(unit: Unit, delivery_id: int, *, now: float) -> None:
    """The same of just this delivery."""
    _set_aside(unit, inbox.c.id == delivery_id, now=now)


def _set_aside(unit: Unit, which: sa.ColumnElement[bool], *, now: float) -> int:
    return unit.connection.execute(
        inbox.update()
        .where(which, inbox.c.state.in_(WAITING))
        .values(
            state=DeliveryState.EXPIRED,
            claim=None,
            lease_until=None,
            next_attempt_at=None,
            last_error=NOT_CONFIGURED,
            updated_at=now,
        )
    ).rowcount


def _bring_back(unit: Unit, configured: Sequence[str], *, now: float) -> int:
    return unit.connection.execute(
        inbox.update()
        .where(
            inbox.c.account.in_(configured),
            inbox.c.state == DeliveryState.EXPIRED,
            inbox.c.last_error == NOT_CONFIGURED,
        )
        .values(state=DeliveryState.RECEIVED, last_error=None, updated_at=now)
    ).rowcount


def shift_times(unit: Unit, seconds: float, *, now: float, accounts: Sequence[str] | None = None) -> None:
    """The system's clock was set by so much: timers and leases go along, so that none fires early or never.

    Nothing was received in the future, so a reception that seems to be is taken for one of now. Nothing waits for
    longer than `LONGEST_WAIT`: what seems to was planned before the clock was set back while nobody looked. Other
    ``accounts``, where some are given, are left alone.
    """
    mine = sa.true() if accounts is None else inbox.c.account.in_(accounts)
    unit.connection.execute(inbox.update().where(mine, inbox.c.received_at > now).values(received_at=now))
    for column, longest in ((inbox.c.next_attempt_at, LONGEST_WAIT), (inbox.c.lease_until, LONGEST_LEASE)):
        shifted = column + seconds
        bounded = sa.case((shifted > now + longest, now + longest), else_=shifted)
        unit.connection.execute(inbox.update().where(mine, column.is_not(None)).values({column: bounded}))


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
