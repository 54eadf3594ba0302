"""``store copy``: a state goes to another store whole, goes on there, and no longer here."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.driving import Driver

from patrolserver_exporter.commands.store import main
from patrolserver_exporter.store import Store, StoreLocked, StoreUnavailable, copy_store, fleet, history
from patrolserver_exporter.store.tables import accounts, changes, feed, inbox, issues, servers, tallies

if TYPE_CHECKING:
    from pathlib import Path


STATE = (accounts, servers, issues, inbox, changes, tallies)


@pytest.fixture
def database(url: str) -> str:
    """URL of a PostgreSQL database without tables."""
    return url


@pytest.fixture
def file(tmp_path: Path) -> str:
    """URL of a state file that is not there yet."""
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture(params=["to PostgreSQL", "to SQLite"])
def both(request: pytest.FixtureRequest, database: str, file: str) -> tuple[str, str]:
    """From where to where."""
    return (file, database) if request.param == "to PostgreSQL" else (database, file)


def fill(url: str) -> None:
    """More rows than are copied at a time, deliveries that wait, and a feed whose first changes were purged."""
    with Store(url) as store:
        driver = Driver(store, HeldClock())
        driver.take_list(*(f"web{n}" for n in range(600)))
        driver.poll(outdated("a"), outdated("b"))
        driver.deliver()
        driver.clock.advance(60.0)
        driver.poll(outdated("b"))
        store.run(lambda unit: history.request_catch_up(unit.connection, "other", 1000.0))
        first = driver.changes()[0].id

        def forget(unit: Any) -> None:
            history.note_purge(unit.connection, sa.select(changes.c.id).where(changes.c.id == first))
            unit.connection.execute(changes.delete().where(changes.c.id == first))
            # The last one, so that only the counter knows that its id was given.
            unit.connection.execute(
                issues.delete().where(issues.c.id == sa.select(sa.func.max(issues.c.id)).scalar_subquery())
            )

        store.run(forget)


def rows(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that is state."""

    def work(connection: sa.Connection) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table.name: [
                tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))
            ]
            for table in STATE
        }

    return store.read(work)


def last_issue(store: Store) -> int:
    """The id that the next issue gets."""
    driver = Driver(store, HeldClock())
    driver.clock.advance(3600.0)
    driver.poll(outdated("b"), outdated("c"))
    return store.read(lambda connection: int(connection.execute(sa.select(sa.func.max(issues.c.id))).scalar_one()))


def test_a_state_goes_on_where_it_was_copied_to(both: tuple[str, str]) -> None:
    """All rows are there; ids are not given twice; old cursors end, and all accounts are polled."""
    source, target = both
    fill(source)
    with Store(source) as store:
        before, told = rows(store), store.read(history.feed_standing)
    with Store(source, even_moved=True) as one, Store(target, even_moved=True) as other:
        copied = copy_store(one, other)
    assert copied == {name: len(found) for name, found in before.items()} | {"catch_ups": 1}
    with Store(target) as store:
        assert rows(store) == before
        standing = store.read(history.feed_standing)
        assert standing.history != told.history
        assert (standing.purged_to, standing.newest) == (told.purged_to, told.newest)
        records = store.run(lambda unit: fleet.account_records(unit.connection))
        assert all((record.catch_up_since or 0.0) > 1e9 for name, record in records.items() if name != "other")
        assert last_issue(store) > 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_what_root_copies_stays_whose_it_was(tmp_path: Path) -> None:
    """Both states with all that lies beside them; a link that somebody put there gives nothing away."""
    nobody = 65534
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = (f"sqlite:///{tmp_path / name / 'state.db'}" for name in ("old", "new"))
    fill(old)
    for path in (tmp_path / "old", *(tmp_path / "old").iterdir(), tmp_path / "new"):
        os.chown(path, nobody, nobody)
    (tmp_path / "others").write_text("of root")
    (tmp_path / "new" / "state.db.lock").symlink_to(tmp_path / "others")
    assert main(["copy", old, new]) == 0
    (tmp_path / "new" / "state.db.lock").unlink()
    assert main(["copy", new, old]) == 0
    files = [path for name in ("old", "new") for path in (tmp_path / name).iterdir()]
    assert {path.name for path in files} == {"state.db", "state.db.sum", "state.db.lock"}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(nobody, nobody)}
    assert (tmp_path / "others").stat().st_uid == 0


def test_a_state_that_was_copied_away_is_not_used_again_until_it_comes_back(both: tuple[str, str]) -> None:
    """A start on it is refused, with where it is now; copied back, it is as it was there."""
    source, target = both
    fill(source)
    with Store(source, even_moved=True) as one, Store(target, even_moved=True) as other:
        copy_store(one, other)
    with pytest.raises(StoreLocked, match="goes on there"):
        Store(source)
    with Store(target) as store:
        last_issue(store)
        there = rows(store)
    with Store(target, even_moved=True) as one, Store(source, even_moved=True) as other:
        copy_store(one, other)
    with Store(source) as store:
        assert rows(store) == there
    with pytest.raises(StoreLocked, match="goes on there"):
        Store(target)


def test_a_copy_that_was_cut_short_can_be_made_again(both: tuple[str, str]) -> None:
    """A source that is marked while nothing is there yet is not used, and the same copy brings all of it over."""
    source, target = both
    fill(source)
    with Store(target) as other, Store(source) as one:
        one.run(lambda unit: unit.connection.execute(feed.update().values(moved_to=other.shown)))
        before = rows(one)
    with pytest.raises(StoreLocked, match="goes on there"):
        Store(source)
    with Store(source, even_moved=True) as one, Store(target, even_moved=True) as other:
        copy_store(one, other)
    with Store(target) as store:
        assert rows(store) == before


def test_a_copy_that_fails_leaves_the_source_as_it_was(both: tuple[str, str]) -> None:
    """Where the target cannot write, the source is not taken for moved."""

    class Full(Store):
        """A store whose disk is full."""

        def submit(self, _: Any, *__: str) -> Any:
            failed: Future[Any] = Future()
            failed.set_exception(StoreUnavailable("The store cannot write: database or disk is full"))
            return failed

    source, target = both
    fill(source)
    with (
        Store(source, even_moved=True) as one,
        Full(target, even_moved=True) as other,
        pytest.raises(StoreUnavailable),
    ):
        copy_store(one, other)
    Store(source).close()


class Interrupting(Store):
    """A store whose reader presses Ctrl-C in the middle of a copy."""

    reads = 0

    def read(self, work: Any) -> Any:
        """Read, and interrupt the main thread once."""
        self.reads += 1
        if self.reads == 4:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return super().read(work)


def test_a_copy_that_is_interrupted_leaves_one_state(both: tuple[str, str]) -> None:
    """The copy does not go on behind the back of who gave it up, to a second state that is used as well."""
    source, target = both
    fill(source)
    with Interrupting(source, even_moved=True) as one, Store(target, even_moved=True) as other:
        with pytest.raises(KeyboardInterrupt):
            copy_store(one, other)
        assert one.reads >= 4
    with Store(target) as store:
        assert not any(rows(store).values())
    with Store(source) as store:
        assert len(rows(store)["servers"]) == 600


def test_a_commit_whose_end_was_not_heard_leaves_one_state(both: tuple[str, str]) -> None:
    """The target has the state, so the source is not used again, although the copy seems to have failed."""

    class Unheard(Store):
        """A store whose commits hold, and whose database does not tell."""

        def submit(self, work: Any, *_: str) -> Any:
            super().submit(work).result()
            failed: Future[Any] = Future()
            failed.set_exception(StoreUnavailable("The store cannot write: server closed the connection"))
            return failed

    source, target = both
    fill(source)
    with (
        Store(source, even_moved=True) as one,
        Unheard(target, even_moved=True) as other,
        pytest.raises(StoreUnavailable),
    ):
        copy_store(one, other)
    with Store(target) as store:
        assert len(rows(store)["servers"]) == 600
    with pytest.raises(StoreLocked, match="goes on there"):
        Store(source)


def test_an_old_copy_does_not_take_the_place_of_what_went_on(both: tuple[str, str], tmp_path: Path) -> None:
    """A state that went on to a third store is not overwritten where it was by what it was made of."""
    first, second = both
    third = f"sqlite:///{tmp_path / 'third.db'}"
    fill(first)
    assert main(["copy", first, second]) == 0
    assert main(["copy", second, third]) == 0
    assert main(["copy", first, second]) == 3
    with pytest.raises(StoreLocked, match=r"third\.db and goes on there"):
        Store(second)


def test_a_target_with_a_state_is_left_alone(both: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is copied, the source goes on, and the exit code is that of a state that cannot be used."""
    source, target = both
    fill(source)
    fill(target)
    with Store(target) as store:
        there = rows(store)
    assert main(["copy", source, target]) == 3
    assert "has a state already" in capsys.readouterr().err
    with Store(target) as store:
        assert rows(store) == there
    Store(source).close()


def test_a_store_in_use_is_not_copied(both: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """While an exporter uses it, what it commits meanwhile would be lost."""
    source, target = both
    fill(source)
    with Store(source):
        assert main(["copy", source, target]) == 3
    assert "in use by another" in capsys.readouterr().err
    assert main(["copy", source, target]) == 0
    assert "servers: 600" in capsys.readouterr().out


def test_a_configuration_file_names_its_store(tmp_path: Path, file: str, database: str) -> None:
    """So no password stands on a command line."""
    fill(file)
    config = tmp_path / "patrolserver.yml"
    config.touch(mode=0o600)
    config.write_text(f"accounts:\n  - name: main\n    key: k\n    secret: s\nstore:\n  url: {database}\n")
    assert main(["copy", file, str(config)]) == 0
    with Store(database) as store:
        assert len(rows(store)["servers"]) == 600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sqlite:///none.db", "sqlite:///other.db"], "there is no state file"),
        (["sqlite:///a.db", "sqlite:///a.db"], "the same store"),
        (["sqlite:///a.db", "postgresql+psycopg://u:secret@h/d"], "a password on the command line"),
        (["sqlite:///a.db", "mysql://h/d"], "URLs like"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is opened, and with the cure."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["copy", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error
