"""The exporters that work on one database: that they live, what they have configured, and whether that is the same.

On SQLite there is one, and these tables stay empty.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from patrolserver_exporter.store.database_time import now_in
from patrolserver_exporter.store.tables import accounts, configured, inbox, insert, replicas

if TYPE_CHECKING:
    from collections.abc import Collection

LIVES_FOR: Final = 10.0
"""Seconds after its last sign in which an exporter counts as living."""
KEPT_CONFIGURED: Final = 660.0
"""Seconds for which an account that no living exporter has configured any more is kept as it is: ten minutes, and one
that may pass from one sign to the next."""
UNHEARD_AFTER: Final = 90.0
"""Seconds after which an exporter that lives has told of its accounts again: each minute, and what a busy one needs."""
_FORGOTTEN_AFTER: Final = 3600.0
LEAVES: Final = ""
"""What an exporter tells in place of the mark of its configuration once it takes no accounts any more."""


class Announced(NamedTuple):
    """What an exporter tells the others of itself."""

    version: str
    """Of the program."""
    config: str
    """Its configuration, as a mark to compare."""
    accounts: tuple[str, ...]


class Replica(NamedTuple):
    """One that lives."""

    owner: str
    name: str
    host: str
    pid: int
    version: str
    config: str

    @property
    def leaves(self) -> bool:
        """It is about to end: it takes no account any more, but may still take deliveries in."""
        return self.config == LEAVES

    @property
    def described(self) -> str:
        """As it stands in messages."""
        named = f"{self.name!r}, " if self.name else ""
        return f"{named}process {self.pid} on host {self.host}"


def announce(connection: sa.Connection, owner: str, name: str, told: Announced, *, with_accounts: bool) -> None:
    """Write that this exporter lives, and now and then what it has configured."""
    now = now_in("postgresql")
    row = {
        "owner": owner,
        "name": name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": told.version,
        "config": told.config,
    }
    statement = insert("postgresql", replicas).values(since=now, seen_at=now, **row)
    changed = {column: statement.excluded[column] for column in ("version", "config", "seen_at")}
    connection.execute(statement.on_conflict_do_update(index_elements=["owner"], set_=changed))
    if with_accounts and told.accounts:
        connection.execute(replicas.delete().where(replicas.c.seen_at < now - _FORGOTTEN_AFTER))
        entry = insert("postgresql", configured).values(seen_at=now)
        entry = entry.on_conflict_do_update(index_elements=["account"], set_={"seen_at": entry.excluded.seen_at})
        # In one order, so that two exporters never wait for each other.
        connection.execute(entry, [{"account": account} for account in sorted(told.accounts)])


def leave(connection: sa.Connection, owner: str) -> None:
    """This exporter ends."""
    connection.execute(replicas.delete().where(replicas.c.owner == owner))


def living(connection: sa.Connection) -> tuple[Replica, ...]:
    """Those that live, this one among them."""
    columns = [replicas.c[name] for name in Replica._fields]
    alive = replicas.c.seen_at > now_in(connection.dialect.name) - LIVES_FOR
    return tuple(Replica(*row) for row in connection.execute(sa.select(*columns).where(alive)))


def note_unheard(connection: sa.Connection, waiting: Collection[str]) -> None:
    """Accounts of which something is kept, and no exporter has ever told: their time begins now.

    ``waiting`` are the states of deliveries that wait.
    """
    heard = sa.select(configured.c.account)
    kept = sa.select(accounts.c.name).where(accounts.c.name.not_in(heard), accounts.c.gone_at.is_(None))
    received = sa.select(inbox.c.account).where(inbox.c.state.in_(waiting), inbox.c.account.not_in(heard)).distinct()
    names = sorted({*connection.execute(kept).scalars(), *connection.execute(received).scalars()})
    if names:
        now = now_in(connection.dialect.name)
        entry = insert(connection.dialect.name, configured).values(seen_at=now).on_conflict_do_nothing()
        connection.execute(entry, [{"account": name} for name in names])


def unused_accounts(connection: sa.Connection, waiting: Collection[str], unheard_for: float) -> list[str]:
    """Accounts of which something is kept, and of which no exporter has told for so many seconds."""
    unused = sa.select(configured.c.account).where(
        configured.c.seen_at <= now_in(connection.dialect.name) - unheard_for
    )
    kept = sa.select(accounts.c.name).where(accounts.c.name.in_(unused), accounts.c.gone_at.is_(None))
    received = sa.select(inbox.c.account).where(inbox.c.state.in_(waiting), inbox.c.account.in_(unused)).distinct()
    return sorted({*connection.execute(kept).scalars(), *connection.execute(received).scalars()})


def configured_somewhere(connection: sa.Connection, accounts: Collection[str], *, now: float) -> tuple[str, ...]:
    """These accounts, and those that another exporter has had configured until a moment ago."""
    query = sa.select(configured.c.account).where(configured.c.seen_at > now - KEPT_CONFIGURED)
    return (*accounts, *(one for one in connection.execute(query).scalars() if one not in accounts))
