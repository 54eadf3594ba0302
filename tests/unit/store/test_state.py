from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import exploitable, outdated, reported, software
from tests.unit.sync.driving import Driver

from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.inbox.deliveries import WAITING, DeliveryState
from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store import Store, fleet, history, rebuild
from patrolserver_exporter.sync import housekeeping

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0
MAX_ID = 2**53 - 1


@pytest.fixture
def driver(store: Store) -> Driver:
    made = Driver(store, HeldClock())
    made.take_list("web", "db")
    made.clock.advance(1.0)
    return made


def test_a_server_reads_as_it_was_written(driver: Driver) -> None:
    """State, summary, software and issues come back equal, the largest id too."""
    listed = (software("php", location="/", exploits=(Exploit(risk=None, cve="CVE-1"),)), outdated("ssh"))
    driver.poll(*listed)
    found = driver.store.run(lambda unit: fleet.software_of(unit.connection, "main", 1))
    assert found == listed
    record = driver.server()
    big = fleet.ServerRecord(
        account="main",
        server_id=MAX_ID,
        name="überall 🙂",
        state=record.state,
        summary=record.summary,
        next_poll_at=1.25,
    )
    driver.store.run(lambda unit: fleet.save_servers(unit.connection, [big]))
    assert driver.server(MAX_ID) == big
    assert driver.store.run(lambda unit: fleet.software_of(unit.connection, "main", MAX_ID)) is None


def test_writing_a_server_keeps_its_software(driver: Driver) -> None:
    """Only a poll brings another list; several servers may be written at once, or none."""
    driver.poll(outdated("ssh"))
    records = driver.store.run(lambda unit: list(fleet.server_records(unit.connection)))
    driver.store.run(lambda unit: fleet.save_servers(unit.connection, records))
    driver.store.run(lambda unit: fleet.save_servers(unit.connection, []))
    driver.store.run(lambda unit: fleet.save_issues(unit.connection, []))
    assert driver.store.run(lambda unit: fleet.software_of(unit.connection, "main", 1)) == (outdated("ssh"),)


def test_servers_are_read_by_account(driver: Driver) -> None:
    """In the order of account and id; gone ones only when asked for."""
    other = Driver(driver.store, driver.clock, account="another")
    other.take_list("x", "y", "z")
    other.take_list("x", "", "z")

    def keys(account: str | None = None, *, gone: bool = False) -> list[tuple[str, int]]:
        return driver.store.run(
            lambda unit: [
                (record.account, record.server_id)
                for record in fleet.server_records(unit.connection, account, gone=gone)
            ]
        )

    assert keys() == [("another", 1), ("another", 3), ("main", 1), ("main", 2)]
    assert keys("another", gone=True) == [("another", 1), ("another", 2), ("another", 3)]


def test_open_issues_are_read_by_server(driver: Driver) -> None:
    """Fixed ones are left out."""
    driver.poll(outdated("php"), outdated("ssh"))
    driver.poll(outdated("php"), server_id=2)
    driver.clock.advance(1.0)
    driver.poll(outdated("php"))
    found = driver.store.run(lambda unit: list(fleet.open_issues(unit.connection, "main")))
    assert [(key, [issue.canonical_name for issue in issues]) for key, issues in found] == [
        (1, ["php"]),
        (2, ["php"]),
    ]
    assert [
        key for key, _ in driver.store.run(lambda unit: list(fleet.open_issues(unit.connection, "main", first=2)))
    ] == [2]


@pytest.mark.parametrize(
    ("duration", "bucket"), [(3600.0, 0), (3600.5, 1), (21_600.0, 1), (86_400.0, 2), (180 * DAY, 9), (181 * DAY, 10)]
)
def test_the_time_to_fix_is_counted(driver: Driver, duration: float, bucket: int) -> None:
    """Each fixed issue is in the bucket whose bound it does not exceed."""
    driver.poll(outdated("php"))
    driver.clock.advance(duration)
    driver.poll()
    tallies = driver.store.run(lambda unit: history.tallies_of(unit.connection, "main"))
    (tally,) = (tally for tally in tallies if tally.opened)
    assert (tally.severity, tally.opened, tally.fixed) == (Severity.MEDIUM, 1, 1)
    assert tally.duration_sum == pytest.approx(duration)
    assert [n for n, count in enumerate(tally.buckets) if count] == [bucket]


def test_every_severity_has_a_tally(driver: Driver) -> None:
    """Zero where nothing happened yet, and each change counts by its severity."""
    driver.poll(exploitable("a", 9.5), exploitable("b", 9.0), outdated("c"))
    tallies = driver.store.run(lambda unit: history.tallies_of(unit.connection, "main"))
    assert [(tally.severity.value, tally.opened) for tally in tallies] == [
        ("critical", 2),
        ("high", 0),
        ("medium", 1),
        ("low", 0),
    ]


def test_the_feed_goes_on_where_a_reader_stopped(driver: Driver) -> None:
    """A cursor is the id of the last change seen; the bounds tell what is kept."""
    assert driver.store.run(lambda unit: history.feed_bounds(unit.connection)) == (0, 0)
    driver.poll(outdated("a"), outdated("b"))
    driver.poll(outdated("c"), server_id=2)
    first = driver.store.run(lambda unit: history.changes_after(unit.connection, 0, 2))
    rest = driver.store.run(lambda unit: history.changes_after(unit.connection, first[-1].id, 10))
    assert [change.issue.canonical_name for change in first + rest] == ["a", "b", "c"]
    assert [change.server for change in first + rest] == ["web", "web", "db"]
    bounds = driver.store.run(lambda unit: history.feed_bounds(unit.connection))
    assert bounds == (first[0].id, rest[-1].id)


def test_what_is_older_than_the_retention_goes(driver: Driver) -> None:
    """Fixed issues, changes, ended deliveries and gone servers go; what is open, waits or is newest stays."""
    clock = driver.clock
    driver.poll(outdated("fixed"), outdated("open"))
    clock.advance(1.0)
    driver.poll(outdated("open"))
    driver.take_list("web")
    ended = {}
    for state in DeliveryState:
        claimed = driver.deliver()
        if state is DeliveryState.RECEIVED:
            driver.store.run(deliveries.release_claims)
        elif state is not DeliveryState.FETCHING:
            driver.store.run(
                lambda unit, claimed=claimed, state=state: deliveries.end_try(  # type: ignore[misc]
                    unit, claimed, state, now=clock.now(), next_attempt_at=clock.now() + 1e6
                )
            )
        ended[state] = claimed.id
    assert purge(driver) == 0
    clock.advance(3601.0)
    assert purge(driver) == 1
    clock.advance(90 * DAY)
    purge(driver)
    left = driver.store.run(lambda unit: deliveries.page(unit.connection, after=0, limit=100))
    assert {row.state for row in left} == set(WAITING)
    assert [issue.canonical_name for issue in driver.issues()] == ["open"]
    assert [change.kind.value for change in driver.changes()] == ["fixed"]
    assert driver.store.run(lambda unit: fleet.find_server(unit.connection, "main", 2)) is None
    assert driver.server(1).gone_at is None
    assert purge(driver) == 0


def purge(driver: Driver, limit: int = 1000) -> int:
    now = driver.clock.now()
    return driver.store.run(lambda unit: housekeeping.purge(unit, now=now, retention=90 * DAY, limit=limit))


def test_the_feed_is_purged_from_its_oldest_change_on(driver: Driver) -> None:
    """A change that is dated long ago, because its event came in late, stays as long as one before it."""
    received = driver.deliver()
    driver.clock.advance(89 * DAY)
    driver.poll(outdated("first"))
    driver.apply(received, reported("late"), server_id=2)
    driver.clock.advance(1.0)
    driver.poll(outdated("first"), outdated("newest"))
    driver.clock.advance(2 * DAY)
    purge(driver)
    assert [name for _, name in driver.told()] == ["first", "late", "newest"]
    driver.clock.advance(89 * DAY)
    purge(driver)
    assert [name for _, name in driver.told()] == ["newest"]


def test_a_purge_is_bounded(driver: Driver) -> None:
    """It takes so many rows at a time and no more, and gets there."""
    driver.poll(*(outdated(f"p{n}") for n in range(10)))
    driver.clock.advance(1.0)
    driver.poll(*(software(f"p{n}", version="1.1") for n in range(10)))
    driver.clock.advance(91 * DAY)
    assert purge(driver, limit=4) == 8
    while purge(driver, limit=4):
        pass
    assert driver.issues() == ()
    assert len(driver.changes()) == 1


def test_a_damaged_file_is_set_aside_when_asked_and_a_sound_one_stays(tmp_path: Path) -> None:
    """Rebuilding moves what is damaged out of the way, keeps it, and touches nothing else."""
    file = tmp_path / "state.db"
    url = f"sqlite:///{file}"
    assert rebuild(url) == []
    with Store(url) as store:
        Driver(store, HeldClock()).take_list("web")
    sound = file.read_bytes()
    assert rebuild(url) == []
    assert file.read_bytes() == sound
    Store(url).close()
    damaged = sound[:5000] + bytes([sound[5000] ^ 1]) + sound[5001:]
    file.write_bytes(damaged)
    moved = rebuild(url)
    assert damaged in [path.read_bytes() for path in moved]
    assert not file.exists()
    with Store(url) as store:
        assert store.run(lambda unit: fleet.account_records(unit.connection)) == {}


def test_a_file_in_use_is_not_rebuilt(tmp_path: Path) -> None:
    """Another process's state is not set aside under it."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with Store(url), pytest.raises(Exception, match="in use by another"):
        rebuild(url)
