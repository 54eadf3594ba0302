"""The follower by itself on a real PostgreSQL: each version in order, nothing older, another history anew."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from tests.harness.waiting import eventually
from tests.unit.sync.accounts import account, configured

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.live.effects import AccountRestored, FleetRestored, InboxMoved, ServerGone, ServerShown
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.store import Store, StoreError, fleet, history
from patrolserver_exporter.store.fleet import AccountRecord, ServerRecord, ServerState
from patrolserver_exporter.store.replicas import Announced
from patrolserver_exporter.store.tables import leases
from patrolserver_exporter.sync import follower as module
from patrolserver_exporter.sync.follower import Follower
from patrolserver_exporter.sync.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.postgres import PostgresCluster

    from patrolserver_exporter.store import Unit
    from patrolserver_exporter.sync.follower import Found

pytestmark = [pytest.mark.calm, pytest.mark.promise("replicas")]

NAMES = ("a", "b")
SERVERS = 5
TOLD = Announced("1.0.0", "same", NAMES)


def run_sql(url: str, *statements: str) -> None:
    """What another process or the operator does."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def write(name: str) -> Callable[[Unit], int]:
    """Write a server's row; what it shows is the version that it is written with, which is returned."""

    def work(unit: Unit) -> int:
        version = int(unit.connection.execute(sa.select(leases.c.version).where(leases.c.account == name)).scalar_one())
        server_id = version % SERVERS + 1
        summary = ServerSummary(account=name, server_id=server_id, name=f"web{server_id}", waived_issues=version)
        record = ServerRecord(
            account=name, server_id=server_id, name=summary.name, state=ServerState(), summary=summary
        )
        fleet.save_servers(unit.connection, [record])
        return version

    return work


class Following:
    """A follower that is asked to look, and what is shown by it."""

    def __init__(self, url: str, *, announced: bool = True) -> None:
        self.url = url
        self.shown: dict[tuple[str, int], int] = {}
        self.restored: list[str] = []
        """Accounts of which everything was shown, in order; ``*`` for all of them."""
        self.store = Store(url, self._show, name="green", shared=True)
        if announced:
            self.store.announce(TOLD)
        self.last: Found | None = None
        self.follower = Follower(
            self.store,
            Telemetry(version="0", revision="0", process_metrics=False),
            SystemClock(),
            on_look=lambda found: setattr(self, "last", found),
        )
        config = configured(*map(account, NAMES))
        rules = {settings.name: Rules.of(config, settings) for settings in config.accounts}
        self.follower.show(rules, config.metrics)

    def look(self) -> Found:
        """Look once, and wait until what was found is shown."""
        self.follower.look()
        self.settle()
        assert self.last is not None
        return self.last

    def settle(self) -> None:
        """Wait until what was emitted is shown."""
        shown = threading.Event()
        self.store.emit([shown])
        assert shown.wait(30)

    def _show(self, effects: list[object]) -> None:
        for effect in effects:
            match effect:
                case threading.Event():
                    effect.set()
                case ServerShown(summary):
                    self._put(summary)
                case ServerGone(name, server_id):
                    del self.shown[name, server_id]
                case AccountRestored(record, summaries, _):
                    self.restored.append(record.name)
                    self.shown = {key: value for key, value in self.shown.items() if key[0] != record.name}
                    for summary in summaries:
                        self.shown[summary.account, summary.server_id] = summary.waived_issues
                case FleetRestored():
                    self.restored.append("*")
                    self.shown = {(one.account, one.server_id): one.waived_issues for one in effect.summaries}

    def _put(self, summary: ServerSummary) -> None:
        key = summary.account, summary.server_id
        assert summary.waived_issues >= self.shown.get(key, 0), "older than what is shown"
        self.shown[key] = summary.waived_issues

    def newest(self, name: str) -> int:
        """The newest version that is shown of an account."""
        return max((version for key, version in self.shown.items() if key[0] == name), default=0)


@pytest.fixture
def owner(url: str) -> Iterator[Store]:
    """The store of an exporter that polls both accounts."""
    with Store(url, name="blue", shared=True) as store:
        store.announce(TOLD)
        assert set(store.take_over(NAMES, lambda _, taken: taken) or {}) == set(NAMES)
        for name in NAMES:
            store.run(lambda unit, name=name: fleet.save_account(unit.connection, AccountRecord(name=name)), name)  # type: ignore[misc]
        yield store


@pytest.fixture
def following(owner: Store, url: str) -> Iterator[Following]:
    """Another exporter's follower beside it."""
    assert owner.is_shared
    made = Following(url)
    with made.store:
        yield made


def stored(url: str) -> dict[tuple[str, int], int]:
    """The servers' versions, as the rows have them."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT account, server_id, version FROM servers").fetchall()
    return {(name, server_id): version for name, server_id, version in rows}


def test_each_version_is_shown_in_order_though_connections_are_cut(
    owner: Store, following: Following, url: str
) -> None:
    """What a look shows is all that was committed when it looked, of each account, and never less than before."""
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    ended = threading.Event()

    def work() -> None:
        for number in range(400):
            with contextlib.suppress(StoreError):
                owner.run(write(NAMES[number % 2]), NAMES[number % 2])
            if number % 100 == 50:
                run_sql(url, cut)
        ended.set()

    writer = threading.Thread(target=work)
    writer.start()
    looks, before = 0, dict.fromkeys(NAMES, 0)
    try:
        while not ended.is_set():
            try:
                found = following.look()
            except StoreError:
                continue
            looks += 1
            for name in NAMES:
                newest = following.newest(name)
                # A transaction of the owner that wrote no server raises the version, too.
                assert before[name] <= newest <= found.position.versions[name]
                before[name] = newest
    finally:
        writer.join()
    eventually(following.look, what="a look")
    assert following.shown == stored(url)
    assert looks > 10
    assert following.restored[0] == "*"


def test_a_look_shows_everything_up_to_its_version(owner: Store, following: Following) -> None:
    """No version is skipped: what is shown then is of the very version that was read."""
    following.look()
    for number in range(20):
        version = owner.run(write(NAMES[number % 2]), NAMES[number % 2])
        found = following.look()
        assert following.newest(NAMES[number % 2]) == version == found.position.versions[NAMES[number % 2]]
    assert following.restored == ["*"]


def test_another_history_is_read_anew(owner: Store, following: Following, url: str) -> None:
    """Versions count from where they are in it, also where they are lower than those that were seen before."""
    for _ in range(SERVERS):
        owner.run(write("a"), "a")
    following.look()
    following.restored.clear()
    owner.run(lambda unit: history.begin_again(unit.connection, time.time()), "a")
    following.look()
    assert following.restored == ["a", "b"]
    following.restored.clear()
    run_sql(url, "UPDATE feed SET history = 'other'; UPDATE leases SET version = 1; UPDATE servers SET version = 1")
    following.look()
    assert following.restored == ["a", "b"]
    assert set(following.shown) == set(stored(url))


def test_a_state_of_before_is_not_shown(owner: Store, following: Following, url: str) -> None:
    """Until whoever polls has begun another history, everything stays as it is; then all is shown as it is now."""
    for _ in range(SERVERS):
        owner.run(write("a"), "a")
    following.look()
    before = dict(following.shown)
    following.restored.clear()
    run_sql(
        url,
        "DELETE FROM servers WHERE version = (SELECT max(version) FROM servers)",
        "UPDATE leases SET version = version - 1 WHERE account = 'a'",
    )
    found = following.look()
    assert not found.is_same
    assert (following.shown, following.restored) == (before, [])
    owner.run(lambda _: None, "a")
    found = following.look()
    assert found.is_same
    assert (following.restored, set(following.shown)) == (["a", "b"], set(stored(url)))
    assert len(following.shown) == SERVERS - 1


def test_who_does_not_poll_has_a_state_of_before_end_as_well(owner: Store, following: Following, url: str) -> None:
    """An account's owner that saw more of others begins another history, too."""
    owner.run(write("a"), "a")
    following.look()
    run_sql(url, "UPDATE leases SET version = version - 1 WHERE account = 'a'")
    assert not following.look().is_same
    following.store.follow_cluster().result(30)
    assert following.look().is_same
    known = following.store.read(fleet.account_records)
    assert known["b"].catch_up_since is not None


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> float:
    """What is a minute otherwise."""
    monkeypatch.setattr(module, "_ALONE_AFTER", 1.0)
    return 1.0


def fails(following: Following, seconds: float) -> None:
    """It looks in vain for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with pytest.raises(StoreError):
            following.look()
        following.follower.end_if_alone()
        time.sleep(0.05)
    following.settle()


CLOSED = "ALTER DATABASE {0} ALLOW_CONNECTIONS {1}"


def close_database(postgres: PostgresCluster, url: str) -> str:
    """Let nobody in; returns the database's name."""
    name = sa.make_url(url).database or ""
    postgres.execute(CLOSED.format(name, "false"))
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
    return name


def test_one_that_cannot_follow_beside_others_shows_no_fleet(
    owner: Store, following: Following, postgres: PostgresCluster, url: str, soon: float
) -> None:
    """Others lived when it last looked, so it may be cut off alone; once it follows again, all is shown again."""
    owner.run(write("a"), "a")
    following.look()
    before = dict(following.shown)
    name = close_database(postgres, url)
    try:
        fails(following, soon / 2)
        assert (following.shown, following.follower.follows) == (before, True)
        fails(following, soon)
        assert (following.shown, following.follower.follows) == ({}, False)
    finally:
        postgres.execute(CLOSED.format(name, "true"))

    def looks() -> bool:
        with contextlib.suppress(StoreError):
            following.look()
        return following.follower.follows

    eventually(looks, what="that it follows")
    following.look()
    assert following.shown == before


def test_nobody_ends_its_series_while_the_database_is_down_for_all(
    owner: Store, url: str, soon: float, postgres: PostgresCluster
) -> None:
    """Its host refuses connections: what is shown stays, and when it last looked tells how old it is."""
    owner.run(write("a"), "a")
    with Store(url, name="red", shared=True) as third, socket.create_server(("127.0.0.1", 0)) as listener:
        third.announce(TOLD)
        port = listener.getsockname()[1]
        way = threading.Thread(target=pass_on, args=(listener, str(postgres.folder / ".s.PGSQL.5432")), daemon=True)
        way.start()
        following = Following(f"{url.partition('?')[0]}?host=127.0.0.1&port={port}", announced=False)
        with following.store:
            following.look()
            assert following.last is not None
            before = dict(following.shown)
            assert before
            listener.shutdown(socket.SHUT_RDWR)
            way.join()
            listener.close()
            fails(following, soon * 2)
            assert (following.shown, following.follower.follows) == (before, True)


def pass_on(listener: socket.socket, place: str) -> None:
    """Connect whoever comes with this socket, until nobody may come any more; then all are cut off."""
    ends: list[socket.socket] = []
    with contextlib.suppress(OSError):
        while True:
            near, far = listener.accept()[0], socket.socket(socket.AF_UNIX)
            far.connect(place)
            ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def test_one_whose_database_answers_and_cannot_be_followed_shows_no_fleet(
    postgres: PostgresCluster, url: str, soon: float
) -> None:
    """Even alone: what it tells is taken, so nothing is away for all."""
    following = Following(url)
    with following.store:
        following.look()
        run_sql(url, "ALTER TABLE operations RENAME TO away")
        fails(following, soon * 1.5)
        assert not following.follower.follows
        run_sql(url, "ALTER TABLE away RENAME TO operations")
        following.look()
        assert following.follower.follows


def test_the_only_one_keeps_its_series_while_the_database_is_away(
    postgres: PostgresCluster, url: str, soon: float
) -> None:
    """Nobody else was there, so nobody shows anything newer; when it last looked tells how old it is."""
    with Store(url, name="blue", shared=True) as owner:
        owner.announce(TOLD)
        owner.take_over(NAMES, lambda _, taken: taken)
        owner.run(write("a"), "a")
    # It has told nothing lately, as after some seconds without the database.
    following = Following(url, announced=False)
    with following.store:
        following.look()
        before, looked_at = dict(following.shown), following.follower.last_look_at
        assert before
        name = close_database(postgres, url)
        try:
            fails(following, soon * 2)
            assert following.follower.follows
            assert (following.shown, following.follower.last_look_at) == (before, looked_at)
        finally:
            postgres.execute(CLOSED.format(name, "true"))


def test_what_is_written_under_the_lease_for_everything_is_shown(url: str) -> None:
    """As by a ``--once`` that was under way when an exporter started."""
    with Store(url, shared=True) as before:
        before.announce(TOLD)
        before.take_over(NAMES, lambda _, taken: taken)
    with Store(url) as alone:
        beside = Following(url)
        with beside.store:
            beside.look()
            for _ in range(2):
                alone.run(write("a"), "a")
                beside.look()
                assert beside.shown.keys() == stored(url).keys()
            restored = len(beside.restored)
            beside.look()
            assert len(beside.restored) == restored


def test_deliveries_that_wait_for_long_are_not_told_of_at_each_look(
    following: Following, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a paused account may wait for hours, and who hears of them counts the whole inbox."""
    told: list[object] = []
    monkeypatch.setattr(following.store, "emit", told.extend)
    run_sql(
        url,
        "INSERT INTO inbox (account, webhook_id, event_id, identifier, state, received_at, updated_at) "
        "VALUES ('a', 1, 1, 'webhook.unknown', 'received', 1.0, 1.0)",
    )
    for _ in range(5):
        following.follower.look()
    assert told.count(InboxMoved()) == 1
    monkeypatch.setattr(module, "_TELL_AGAIN", 0.0)
    following.follower.look()
    assert told.count(InboxMoved()) == 2
