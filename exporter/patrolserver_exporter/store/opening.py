"""Taking a PostgreSQL database up: together with others, or for this process alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import sqlalchemy as sa

from patrolserver_exporter.store import database_time, history, replicas
from patrolserver_exporter.store.engines import described
from patrolserver_exporter.store.errors import StoreLocked, StoreUnavailable
from patrolserver_exporter.store.lease_rows import STORE, cluster
from patrolserver_exporter.store.schema import HEAD, cannot_open, has_leases, is_at, migrate, will_do

if TYPE_CHECKING:
    from patrolserver_exporter.store.lease import Lease

log = logging.getLogger(__name__)


def take_for_itself(engine: sa.Engine, lease: Lease) -> None:
    """Take the lease on a PostgreSQL database, then bring its schema to ``HEAD``, so that no other one is overtaken."""
    try:
        if not _is_prepared(engine, lease, alone=True):
            lease.acquire(engine, described(engine))
        with engine.begin() as connection:
            others = [one for one in replicas.living(connection) if one.owner != lease.owner]
        if others:
            lease.give_back(engine)
            raise StoreLocked(
                f"{described(engine)} is in use by another patrolserver-exporter: process {others[0].pid} on host "
                f"{others[0].host}. This needs the database for itself: stop all exporters on it first."
            )
        with engine.begin() as connection:
            lease.end_those_of_accounts(connection)
        _go_on_from(engine, lease)
    except sa.exc.OperationalError as error:
        raise cannot_open(engine, error) from error


def join(engine: sa.Engine, lease: Lease) -> None:
    """Open a PostgreSQL database together with others; leases are taken later, where they are free."""
    try:
        _refuse_other_encodings(engine)
        if _is_prepared(engine, lease, alone=False):
            # For the migration, which needs the database for itself.
            _go_on_from(engine, lease)
            lease.give_back(engine)
    except sa.exc.OperationalError as error:
        raise cannot_open(engine, error) from error


def _refuse_other_encodings(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding not in {"UTF8", "SQL_ASCII"}:
        raise StoreUnavailable(
            f"{described(engine)} has the encoding {encoding}, in which names and titles in other scripts cannot be "
            "kept. Make one with createdb --encoding=UTF8 --template=template0, take the state there with "
            "patrolserver-exporter store copy, and give it in store.url."
        )


def _is_prepared(engine: sa.Engine, lease: Lease, *, alone: bool) -> bool:
    """Bring the schema to ``HEAD``; whether the lease had to be taken for that."""
    with engine.begin() as connection:
        is_leased = has_leases(connection)
        if is_leased and (is_at(HEAD, connection) if alone else will_do(connection)):
            return False
    if not is_leased:
        migrate(engine)
    if not lease.acquire(engine, described(engine), lambda: _has_been_migrated(engine)):
        return False

    def keep_lease() -> None:
        with engine.begin() as connection:
            lease.prolong(connection, [STORE])

    migrate(engine, keep_lease)
    return True


def _has_been_migrated(engine: sa.Engine) -> bool:
    with engine.begin() as connection:
        return is_at(HEAD, connection)


def _go_on_from(engine: sa.Engine, lease: Lease) -> None:
    """The lease is ours now: the state goes on from what is there, which may not be all that was committed."""
    with engine.begin() as connection:
        fenced = lease.fence(connection, [STORE])
        follow_cluster(connection)
    fenced.committed()


def follow_cluster(connection: sa.Connection, *, went_back: bool = False) -> None:
    """Begin another history where the database is not the one that the feed was written in, or lacks what was read."""
    now = database_time.read(connection)
    is_another = history.follow_cluster(connection, cluster(connection), now)
    if went_back and not is_another:
        history.begin_again(connection, now)
    if went_back or is_another:
        log.warning(
            "The database is another one than before, or was failed over: all servers are polled, and are "
            "unknown to the gate until then"
        )


def begin_again(connection: sa.Connection) -> None:
    """The state is not all that was committed: another history begins."""
    history.begin_again(connection, database_time.read(connection))
