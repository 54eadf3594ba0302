"""Stores of several exporters on one PostgreSQL, within one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from patrolserver_exporter.store import Store, fleet
from patrolserver_exporter.store.fleet import AccountRecord
from patrolserver_exporter.store.replicas import Announced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.store.lease import Taken


def shared(url: str, name: str, *configured: str) -> Store:
    """Open the store of an exporter that says that it lives."""
    store = Store(url, name=name, shared=True)
    store.announce(Announced("1.0.0", "same", configured or ("a", "b")))
    return store


def run_sql(url: str, statement: str) -> None:
    """What another process or the operator does."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement.encode())


def take(store: Store, *names: str) -> Mapping[str, Taken]:
    """Take those that are free."""
    return store.take_over(names, lambda _, taken: taken) or {}


def saving(name: str, up: bool = True) -> Callable[[Unit], None]:  # noqa: FBT001, FBT002  # The one thing that differs.
    def work(unit: Unit) -> None:
        fleet.save_account(unit.connection, AccountRecord(name=name, up=up))

    return work


def saved(store: Store) -> dict[str, bool | None]:
    """The accounts' rows, after another look at the database."""
    if store.is_shared:
        store.follow(lambda _: None)
    return store.read(lambda c: {name: record.up for name, record in fleet.account_records(c).items()})


def commit_unheard(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The next commit that needs no lease takes effect, and its connection is lost before that is heard.

    What is returned is empty until that has happened.
    """
    dialect = store._intake_engine.dialect  # noqa: SLF001  # Where connections are lost.
    lost: list[int] = []
    commit = dialect.do_commit

    def do_commit(connection: object) -> None:
        commit(connection)  # type: ignore[arg-type]
        if not lost:
            lost.append(1)
            raise psycopg.OperationalError("connection lost")

    monkeypatch.setattr(dialect, "do_commit", do_commit)
    return lost
