"""The tables, in both dialects of SQL, and sealed documents in their columns.

A document is JSON behind a checksum, so that a flipped bit is found and never shown as a number.
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from patrolserver_exporter.store.errors import StoreCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite only counts up a column that is declared INTEGER."""

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("up", sa.Boolean),
    sa.Column("last_success_at", sa.Double),
    sa.Column("state", sa.LargeBinary),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("gone_at", sa.Double),
)
"""``version`` is that of the account's lease when the row was written last, here and in ``servers`` and ``tallies``. A
row whose account is not configured any more is marked by ``gone_at``, and never removed."""

catch_ups = sa.Table(
    "catch_ups",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("since", sa.Double, nullable=False),
)
"""Accounts whose servers have to be polled at that time or later. Whoever takes deliveries in writes it."""

servers = sa.Table(
    "servers",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("server_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("gone_at", sa.Double),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("summary", sa.LargeBinary, nullable=False),
    sa.Column("software", sa.LargeBinary),
    sa.Column("next_poll_at", sa.Double),
    sa.Column("critical", sa.Integer, nullable=False, server_default="0"),
    sa.Column("high", sa.Integer, nullable=False, server_default="0"),
    sa.Column("medium", sa.Integer, nullable=False, server_default="0"),
    sa.Column("low", sa.Integer, nullable=False, server_default="0"),
    sa.Column("waived", sa.Integer, nullable=False, server_default="0"),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index(None, "name"),
    # All that the sums over the fleet read, and whether a server is gone. That comes last: else SQLite would take this
    # index for every list of servers that are here.
    sa.Index("ix_servers_totals", "critical", "high", "medium", "low", "account", "server_id", "waived", "gone_at"),
    sa.Index("ix_servers_version", "account", "version"),
)

issues = sa.Table(
    "issues",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("server_id", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("canonical_name", sa.Text, nullable=False),
    sa.Column("waived", sa.Boolean, nullable=False),
    sa.Column("fixed_at", sa.Double),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("account", "server_id", "fingerprint"),
    # All that counts of issues over the fleet read.
    sa.Index("ix_issues_counted", "fixed_at", "id", "account", "server_id", "severity", "waived"),
    sqlite_autoincrement=True,
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("webhook_id", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.BigInteger, nullable=False),
    sa.Column("identifier", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("next_attempt_at", sa.Double),
    sa.Column("claim", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("server_id", sa.BigInteger),
    sa.Column("last_error", sa.Text),
    sa.Column("body", sa.LargeBinary),
    sa.UniqueConstraint("account", "webhook_id", "event_id"),
    sa.Index(None, "state", "received_at"),
    sa.Index("ix_inbox_due", "state", "attempts", "next_attempt_at"),
    sqlite_autoincrement=True,
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("server_id", sa.BigInteger, nullable=False),
    sa.Column("server", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    # All that counts of changes over the fleet read.
    sa.Index("ix_changes_counted", "at", "kind", "account", "server_id"),
    sqlite_autoincrement=True,
)

tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("severity", sa.Text, primary_key=True),
    sa.Column("opened", sa.BigInteger, nullable=False),
    sa.Column("fixed", sa.BigInteger, nullable=False),
    sa.Column("duration_sum", sa.Double, nullable=False),
    sa.Column("buckets", sa.Text, nullable=False),
    sa.Column("worsened", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
)
"""Counters of the fleet: they are part of the state, so a restart does not reset them."""

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("until", sa.Double),
    sa.Column("since", sa.Double),
    sa.Column("name", sa.Text),
    sa.Column("host", sa.Text),
    sa.Column("pid", sa.BigInteger),
    sa.Column("handed", sa.LargeBinary),
    # Updated by every commit; room on the page lets PostgreSQL do that without a new entry in the index.
    postgresql_with={"fillfactor": 10},
)
"""Who may write (see ``lease``). ``handed`` is what who gave a lease back tells the next one."""

replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
)
"""The exporters that work on this database: each writes its own row every few seconds."""

configured = sa.Table(
    "configured",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("seen_at", sa.Double, nullable=False),
)
"""When a living exporter last had an account in its configuration."""

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("server_id", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    sa.Column("error", sa.Text),
    sa.Column("together", sa.Text),
    sa.Column("server", sa.Text),
    sa.Index(None, "state"),
    sa.Index(None, "together"),
)
"""Refreshes that were asked for, of whatever exporter. ``together`` names those that were asked for by one call."""

feed = sa.Table(
    "feed",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("history", sa.Text, nullable=False),
    sa.Column("purged_to", sa.BigInteger, nullable=False),
    sa.Column("cluster", sa.Text),
    sa.Column("moved_to", sa.Text),
)
"""Where the change feed stands: one row."""


sums = sa.Table(
    "sums",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("last_id", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What each table must hold (see the module ``sums``)."""


def insert(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that can say ``ON CONFLICT`` in this dialect of SQL."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]], *key: str) -> None:
    """Write rows, all with the same columns; where the ``key`` is known, the other columns are replaced."""
    if not rows:
        return
    statement = _upsert(connection.dialect.name, table, key, tuple(rows[0]))
    if table in _VERSIONED:
        rows = [{**row, "of_account": row[key[0]]} for row in rows]
    connection.execute(statement, rows)


_VERSIONED = frozenset({accounts, servers, tallies})
"""Tables of which others read what is new, by the version. Their keys begin with the account."""


# Building the statement costs more than running it.
@functools.lru_cache(maxsize=64)
def _upsert(dialect: str, table: sa.Table, key: tuple[str, ...], columns: Iterable[str]) -> sa.Insert:
    statement = insert(dialect, table)
    changed: dict[str, Any] = {name: statement.excluded[name] for name in columns if name not in key}
    if table in _VERSIONED:
        # Of this transaction: its fence has just raised it.
        account = sa.bindparam("of_account", type_=sa.Text)
        of_lease = sa.select(leases.c.version).where(leases.c.account == account).scalar_subquery()
        statement = statement.values(version=sa.func.coalesce(of_lease, 0))
        changed["version"] = statement.excluded.version
    return statement.on_conflict_do_update(index_elements=list(key), set_=changed)


T = TypeVar("T")
SEAL_BYTES = 4
_encode = msgspec.json.Encoder().encode
_decoders: dict[object, msgspec.json.Decoder[object]] = {}


def seal(value: object) -> bytes:
    """A value as JSON behind its CRC-32."""
    body = _encode(value)
    return zlib.crc32(body).to_bytes(SEAL_BYTES, "big") + body


def check(document: bytes) -> None:
    """``StoreCorrupt`` if a sealed document is not what was written."""
    if zlib.crc32(memoryview(document)[SEAL_BYTES:]).to_bytes(SEAL_BYTES, "big") != document[:SEAL_BYTES]:
        raise StoreCorrupt("A stored document does not match its checksum.")


def unseal(document: bytes, type_: type[T]) -> T:
    """The value of a sealed document; ``StoreCorrupt`` if it is not what was written."""
    check(document)
    body = memoryview(document)[SEAL_BYTES:]
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders.setdefault(type_, msgspec.json.Decoder(type_))
    try:
        return decoder.decode(body)  # type: ignore[return-value]  # The decoder is keyed by its type.
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"A stored {getattr(type_, '__name__', type_)} cannot be read: {error}") from error
