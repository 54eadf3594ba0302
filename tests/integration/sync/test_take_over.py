"""What goes along when an account moves from one exporter to another one, and what the others leave alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.harness.alerting import Cable
from tests.harness.waiting import eventually
from tests.harness.watching import EVENT, LIST, QUICK, SOFTWARE, Watching
from tests.unit.sync.accounts import account, configured

from patrolserver_exporter.config.schema import Issues, ServerFilter, Webhook
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.gate.evidence import Standing
from patrolserver_exporter.inbox import intake
from patrolserver_exporter.store import Store, fleet, lease, replicas
from patrolserver_exporter.sync import housekeeping, restore, shares, ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.ticking import HeldClock

    from patrolserver_exporter.config.schema import Config

pytestmark = [pytest.mark.calm, pytest.mark.promise("replicas")]


class SharedStore(Store):
    """A store that others may have open, too."""

    def __init__(self, url: str, on_commit: Callable[[list[object]], None] = lambda _: None) -> None:
        super().__init__(url, on_commit, shared=True)


@pytest.fixture
def pair(url: str) -> Iterator[tuple[Watching, Watching]]:
    """Two exporters on it; the first one's simulator is asked by both."""
    with ExitStack() as stack:
        first = stack.enter_context(Watching(url, store=SharedStore))
        yield first, stack.enter_context(Watching(url, store=SharedStore))


def both(first: Watching, second: Watching, holds: Callable[[], Any], what: str) -> None:
    """Tick both until it holds."""

    def ticked() -> Any:
        first.accounts.tick()
        return holds()

    second.until(ticked, what, within=60.0)


def rows(url: str) -> dict[str, list[Any]]:
    """All that belongs to accounts, whoever wrote it; and how often each lease was written under."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2".encode()).fetchall()  # noqa: S608
            for table in ("accounts", "catch_ups", "servers", "issues", "inbox", "changes", "tallies", "feed")
        }
        leases = "SELECT account, owner, epoch, version FROM leases WHERE account NOT LIKE '/%' ORDER BY 1"
        return found | {"leases": connection.execute(leases.encode()).fetchall()}


def age_configured(url: str, name: str, seconds: float) -> None:
    """As if no exporter had told of this account for so much longer."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE configured SET seen_at = seen_at - %s WHERE account = %s", [seconds, name])


def test_a_take_over_does_not_call_into_a_retry_after(pair: tuple[Watching, Watching]) -> None:
    """The pause that the API asked for goes along: the new owner makes no call before it ends, and tells of it."""
    first, second = pair
    config = first.start()
    second.accounts.start(config)
    first.fault("rate_limit", "servers", retry_after=600)
    first.accounts.list_now()
    # What the other one tells of is a row by now.
    both(first, second, lambda: second.accounts.statuses()[0].pause_until is not None, "the pause")
    until = first.accounts.statuses()[0].pause_until
    first.accounts.leave()
    calls = first.count(LIST), first.count(SOFTWARE), first.count(EVENT)
    both(first, second, lambda: second.accounts.owns("main"), "a take-over")
    second.tick_for(2.0)
    status = second.accounts.statuses()[0]
    assert (first.count(LIST), first.count(SOFTWARE), first.count(EVENT)) == calls
    assert until is not None
    assert status.pause_until == pytest.approx(until, abs=2.0)
    assert status.pause_reason


def test_failures_in_a_row_go_along(pair: tuple[Watching, Watching]) -> None:
    """The next list call is made when the one before would have made it, and the trouble is told meanwhile."""
    first, second = pair
    config = first.start()
    second.accounts.start(config)
    first.fault("status", "servers", status=500)
    first.accounts.list_now()
    both(first, second, lambda: first.accounts.statuses()[0].trouble is not None, "the trouble")
    trouble = first.accounts.statuses()[0].trouble
    # Both know of it, before one of them leaves.
    both(first, second, lambda: second.accounts.statuses()[0].trouble == trouble, "the trouble on the other one")
    due_at = first.account.standing.list_at
    assert due_at is not None
    calls = first.count(LIST)
    first.accounts.leave()
    both(first, second, lambda: second.accounts.owns("main"), "a take-over")
    standing = second.account.standing
    assert (second.accounts.statuses()[0].trouble, standing.list_failures) == (trouble, 1)
    assert standing.list_at is not None
    assert standing.list_at > due_at - 2.0
    second.until(lambda: first.count(LIST) > calls, "the next list call", within=60.0)


def test_an_account_goes_to_the_exporter_that_reaches_its_api(
    pair: tuple[Watching, Watching], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its owner, whose own way there is lost, gives it up, and the other one polls it at once, and keeps it.

    Where that one then loses its way, too, it stays: the first one may have it back when its pause is over.
    """
    monkeypatch.setattr(ways, "AFTER", 0.5)
    monkeypatch.setattr(shares, "CALM", 0.5)
    first, second = pair
    with Cable(first.simulator.base_url, "first", "second") as cable:

        def through(name: str) -> Config:
            # A secret, so that their configurations are the same.
            proxy = Secret.literal(cable.proxy_for(name))
            return configured(account(api_url=first.simulator.base_url, proxy_url=proxy), poll=QUICK)

        def fails(one: Watching) -> bool:
            # Its calls are made one after the other, though a trouble spaces them out.
            if not one.accounts.owns("main"):
                return False
            one.list_now()
            return one.account.unreached is not None and one.account.unreached.is_lasting

        first.accounts.start(through("first"))
        first.until(lambda: len(first.polled()) == 3, "the first polls")
        second.accounts.start(through("second"))
        eventually(lambda: first.accounts.replicas == second.accounts.replicas == (2, 0), what="both of them")
        cable.cut["first"].set()
        both(first, second, lambda: not fails(first) and second.accounts.owns("main"), "a take-over")
        assert not first.accounts.owns("main")

        def record() -> fleet.AccountRecord:
            return second.store.run(lambda unit: fleet.account_records(unit.connection), "main")["main"]

        both(first, second, lambda: record().up, "an answer")
        (gave_up,) = record().state.given_up
        assert (gave_up.owner, gave_up.times) == (first.store.owner, 1)
        assert gave_up.until == pytest.approx(second.clock.now() + ways.FIRST_PAUSE, abs=30.0)
        assert caplog.text.count("cannot reach the API of these accounts, and gives them to others") == 1
        both_for(first, second, 1.5)
        assert second.accounts.owns("main")
        cable.cut["second"].set()
        both(first, second, lambda: fails(second), "that it fails there, too")
        both_for(first, second, 1.5)
        assert second.accounts.owns("main")
        assert caplog.text.count("cannot reach the API of these accounts, and keeps them") == 1


def test_neither_start_nor_reload_of_one_that_polls_nothing_writes_anything(
    pair: tuple[Watching, Watching], url: str
) -> None:
    """Whatever it has configured, and whatever rules it would judge by."""
    first, second = pair
    config = first.start()
    first.rest()
    before = without_versions(rows(url))
    api_url = first.simulator.base_url
    others = (
        configured(account(api_url=api_url, labels={"*": {"team": "other"}}), poll=QUICK),
        configured(account(api_url=api_url), poll=QUICK, issues=Issues(settle=1.0, exploit_risk=9.9)),
        configured(account(api_url=api_url, servers=ServerFilter(exclude=("*",))), poll=QUICK),
    )
    second.accounts.start(config)
    for changed in (None, *others):
        if changed is not None:
            second.accounts.reload(changed, config)
        both_for(first, second, 1.0)
        assert without_versions(rows(url)) == before
        assert first.accounts.owns("main")


def without_versions(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The owner's transactions raise them, also where they change nothing."""
    return found | {"leases": [row[:3] for row in found["leases"]]}


def both_for(first: Watching, second: Watching, seconds: float) -> None:
    """Let time pass for both."""
    end = time.monotonic() + seconds
    both(first, second, lambda: time.monotonic() > end, "the time")


def test_an_account_is_retired_by_a_mark_and_comes_back(pair: tuple[Watching, Watching], url: str) -> None:
    """Not before ten minutes without anybody who has it configured; its row stays, and its version goes on."""
    first, second = pair
    config = first.start()
    first.deliver(4711, "webhook.unknown")
    second.accounts.start(config)
    other = configured(account("other", api_url=first.simulator.base_url), poll=QUICK)
    for one in (first, second):
        one.accounts.reload(other, config)
    both(first, second, lambda: first.accounts.owns("other") or second.accounts.owns("other"), "the other account")
    before = rows(url)
    (version,) = [row[3] for row in before["leases"] if row[0] == "main"]
    for one in (first, second):
        one.accounts._housekeeping._retire_unused()  # noqa: SLF001  # Once a minute.
    assert of_main(rows(url)) == of_main(before)
    age_configured(url, "main", 700.0)
    for one in (first, second):
        one.accounts._housekeeping._retire_unused()  # noqa: SLF001
    # While the database was away, nobody could tell of it: each looks for itself for as long.
    assert of_main(rows(url)) == of_main(before)
    for one in (first, second):
        one.accounts._housekeeping._unheard._since["main"] = -600.0  # noqa: SLF001
        one.accounts._housekeeping._retire_unused()  # noqa: SLF001
    after = rows(url)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        gone = "SELECT name, gone_at IS NOT NULL FROM accounts WHERE name = 'main'"
        assert connection.execute(gone.encode()).fetchall() == [("main", True)]
        servers = "SELECT count(*) FROM servers WHERE account = 'main' AND gone_at IS NULL"
        assert connection.execute(servers.encode()).fetchone() == (0,)
        states = "SELECT DISTINCT state FROM inbox WHERE account = 'main'"
        assert connection.execute(states.encode()).fetchall() <= [("expired",), ("rejected",)]
    (later,) = [row[3] for row in after["leases"] if row[0] == "main"]
    assert later > version
    for one in (first, second):
        one.accounts.reload(config, other)
    both(first, second, lambda: first.accounts.owns("main") or second.accounts.owns("main"), "the account again")
    both(first, second, lambda: len(first.polled()) == 3, "its polls")
    (last,) = [row[3] for row in rows(url)["leases"] if row[0] == "main"]
    assert last > later


def of_main(found: dict[str, list[Any]]) -> list[Any]:
    """What is the account's own, its lease left aside."""
    return [row for table, some in found.items() if table != "leases" for row in some if "main" in row]


def test_a_start_that_lasts_longer_than_a_lease_reads_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large account may take longer to be taken over; what is read then is vouched for all the same."""
    lasting = restore.take_over

    def take_over(*arguments: Any, **options: Any) -> restore.Restored:
        time.sleep(1.2)
        return lasting(*arguments, **options)

    monkeypatch.setattr(restore, "take_over", take_over)
    with Watching(url, store=SharedStore) as one:
        monkeypatch.setattr(lease, "LEASE", 1.0)
        one.accounts.start(configured(account(api_url=one.simulator.base_url), poll=QUICK))
        assert one.store.accounts_held == ("main",)
        assert one.store.read(intake.newest_receptions) == {}


def test_nothing_is_taken_once_a_stop_has_begun(pair: tuple[Watching, Watching]) -> None:
    """Not by a tick that found an account free just before, either: nobody would give it back."""
    first, _ = pair
    first.start()
    first.accounts.leave()
    first.accounts._take_over(["main"], resumes=True)  # noqa: SLF001  # What such a tick goes on with.
    assert first.store.accounts_held == ()


def test_a_stop_waits_for_no_take_over_that_a_silent_database_holds_up(pair: tuple[Watching, Watching]) -> None:
    """It gives its leases back within two seconds, or lets them run out; the take-over gives up."""
    first, _ = pair
    first.start()
    answers = threading.Event()
    first.store._thread.submit(lambda _: answers.wait(60.0), under=())  # noqa: SLF001  # As a database that is silent.
    taking = threading.Thread(target=first.accounts._take_over, args=(["other"],), kwargs={"resumes": True})  # noqa: SLF001
    taking.start()
    try:
        eventually(first.accounts._lock.locked, what="that the take-over waits")  # noqa: SLF001
        began = time.monotonic()
        first.accounts.leave()
        took = time.monotonic() - began
        taking.join(5.0)
        assert not taking.is_alive()
    finally:
        answers.set()
    assert took < 4.0


def test_a_tick_waits_for_a_silent_database_no_longer_than_some_seconds(
    pair: tuple[Watching, Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retiring accounts gives up then, and begins again later."""
    monkeypatch.setattr(housekeeping, "_RETIRE_TIMEOUT", 0.2)
    first, _ = pair
    first.start()
    answers = threading.Event()
    first.store._thread.submit(lambda _: answers.wait(60.0), under=())  # noqa: SLF001  # As a database that is silent.
    try:
        began = time.monotonic()
        first.accounts._housekeeping._retire_unused()  # noqa: SLF001  # Once a minute.
        assert time.monotonic() - began < 5.0
    finally:
        answers.set()


def test_nothing_is_left_to_an_exporter_that_is_about_to_end(pair: tuple[Watching, Watching]) -> None:
    """It lives for some seconds more, and takes deliveries in; but what it gave back falls to the others at once."""
    first, second = pair
    config = first.start()
    second.accounts.start(config)
    first.accounts.leave()
    both(first, second, lambda: second.accounts.owns("main"), "a take-over")
    assert second.accounts.replicas == (2, 0)
    living = second.store.follow(lambda look: replicas.living(look.connection))
    assert {one.owner: one.leaves for one in living} == {first.store.owner: True, second.store.owner: False}


def test_an_account_that_cannot_be_read_is_told_of(
    pair: tuple[Watching, Watching], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where only its owner would read what is damaged, so that nothing else tells that nobody polls it."""
    first, second = pair
    config = first.start()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE servers SET gone_at = 1.0, state = 'damaged' WHERE server_id = 1")
    first.accounts.leave()
    second.accounts.start(config)
    second.until(lambda: "cannot be taken" in caplog.text, "the error")
    assert [one.levelname for one in caplog.records if "cannot be taken" in one.message] == ["ERROR"]


NAMES = tuple(f"account{number}" for number in range(6))


def six(watching: Watching) -> Config:
    """Six accounts that watch the same servers."""
    accounts = [account(name, api_url=watching.simulator.base_url) for name in NAMES]
    webhook = Webhook(max_event_requests_per_minute=60_000)
    return configured(*accounts, poll=QUICK, issues=Issues(settle=0.1), webhook=webhook)


def test_an_exporter_that_joins_is_given_its_share(
    pair: tuple[Watching, Watching], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accounts move while calls for their deliveries are under way: none of them is lost, or takes effect twice."""
    monkeypatch.setattr(shares, "CALM", 0.5)
    first, second = pair
    config = six(first)
    first.accounts.start(config)
    first.until(lambda: polls(first) == 6 * 3, "the first polls", within=60.0)
    assert set(first.store.accounts_held) == set(NAMES)
    first.fault("latency", "webhooks/*/events/*", seconds=1.0)
    before, event = told(url), first.broken(1)
    for name in NAMES:
        first.deliver(event, account=name)
    first.until(lambda: first.count(EVENT) >= 4, "calls under way")
    second.accounts.start(config)
    both(first, second, lambda: len(second.store.accounts_held) == 3, "its share")
    both(first, second, lambda: states(url) == {"applied": 6}, "the deliveries' effect")
    # Now nothing moves any more.
    held = first.store.accounts_held, second.store.accounts_held
    both_for(first, second, 2.0)
    assert (first.store.accounts_held, second.store.accounts_held) == held
    assert sorted([*held[0], *held[1]]) == list(NAMES)
    grown = told(url) - before
    # As of an account that has not moved.
    stayed = {kind: count for (name, kind), count in grown.items() if name == held[0][0]}
    assert stayed["opened"]
    assert grown == Counter({(name, kind): count for name in NAMES for kind, count in stayed.items()})


def told(url: str) -> Counter[tuple[str, str]]:
    """How many changes of each kind each account has in the feed."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return Counter(connection.execute("SELECT account, kind FROM changes").fetchall())


def polls(watching: Watching) -> int:
    """Servers that were polled."""
    return watching.store.run(
        lambda unit: sum(record.state.poll_success for record in fleet.server_records(unit.connection))
    )


def states(url: str) -> dict[str, int]:
    """How many deliveries are in which state."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM inbox GROUP BY 1").fetchall())


def test_one_damaged_account_does_not_keep_the_others_from_being_taken(
    pair: tuple[Watching, Watching], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is stored of it is told of, and it is left out for a while."""
    first, second = pair
    config = six(first)
    first.accounts.start(config)
    first.until(lambda: polls(first) == 6 * 3, "the first polls", within=60.0)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        damage = "UPDATE servers SET gone_at = 1.0, state = 'damaged' WHERE server_id = 1 AND account = 'account2'"
        connection.execute(damage.encode())
    first.accounts.leave()
    second.accounts.start(config)
    second.until(lambda: len(second.store.accounts_held) == 5, "the others")
    assert set(NAMES) - set(second.store.accounts_held) == {"account2"}
    said = [one for one in caplog.records if "cannot be taken" in one.message]
    assert [one.levelname for one in said] == ["ERROR"]
    second.tick_for(1.0)
    assert [one for one in caplog.records if "cannot be taken" in one.message] == said


def spend(watching: Watching) -> None:
    """Take all calls that the account may make now."""
    polls = watching.account.budgets.polls
    while polls.try_take():
        pass


def test_a_run_for_itself_and_exporters_share_the_budget(url: str, clock: HeldClock) -> None:
    """``--once`` goes on from what an exporter left, exporters from what it left, and so on."""
    poll = replace(QUICK, max_requests_per_minute=60)
    with Watching(url, store=SharedStore, clock=clock) as exporter:
        exporter.accounts.start(exporter.config(poll=poll))
        spend(exporter)
    for kind in (Store, SharedStore, Store):
        with Watching(url, store=kind, clock=clock) as after:
            after.accounts.start(after.config(poll=poll))
            assert after.account.budgets.polls.available() < 1.0, kind
            clock.advance(5.0)
            spend(after)


def test_exporters_owe_what_a_run_for_itself_may_have_called(url: str) -> None:
    """One that was killed told nobody, so the next ones begin with less than nothing."""
    Store(url).close()
    killed = "owner = 'killed', since = 1, epoch = epoch + 1, handed = NULL"
    # Its lease has just run out.
    until = "until = extract(epoch FROM clock_timestamp()) - 1"
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"UPDATE leases SET {killed}, {until} WHERE account = ''".encode())  # noqa: S608
    with Watching(url, store=SharedStore) as exporter:
        exporter.accounts.start(exporter.config(poll=replace(QUICK, max_requests_per_minute=6)))
        assert exporter.account.budgets.polls.seconds_until_available() > 1.0


def test_a_clock_that_was_set_back_while_nobody_polled_makes_nothing_younger(
    pair: tuple[Watching, Watching], url: str
) -> None:
    """Whoever had the account was heard of in the future: until it is taken over, and polled then, nothing is sure."""
    first, second = pair
    config = first.start()
    first.accounts.leave()
    polled = {server_id: at for server_id, at in polls_of(url).items() if at is not None}
    ahead = "UPDATE leases SET until = until + 3600 WHERE account = 'main'"
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute(ahead.encode())
    first.fault("status", "*", status=503)
    second.accounts.start(config)
    if not second.accounts.owns("main"):
        assert second.accounts.clock_doubt > 3500.0
    second.until(lambda: second.accounts.owns("main"), "the take-over", within=60.0)
    assert all(at is None or polled[server_id] - at > 3500.0 for server_id, at in polls_of(url).items())
    record = second.store.run(lambda unit: fleet.find_account(unit.connection, "main"))
    assert record is not None
    assert record.catch_up_since is not None
    assert second.accounts.clock_doubt == 0.0


def test_a_reader_with_another_configuration_vouches_for_no_list(pair: tuple[Watching, Watching]) -> None:
    """What the owner has read by its own is the list of that one alone, until the reader has the same."""
    first, second = pair
    config = first.start()
    settings = account(api_url=first.simulator.base_url, servers=ServerFilter(exclude=("db-*",)))
    fewer = configured(settings, poll=QUICK)

    def doubt(exporter: Watching) -> str | None:
        record = exporter.store.read_patiently(lambda connection: fleet.find_account(connection, "main"))
        (status,) = exporter.accounts.statuses()
        return Standing.of(status.health, record).list_incomplete

    second.accounts.start(fewer)
    assert first.accounts.owns("main")
    assert "include and exclude lists" in (doubt(second) or "")
    assert doubt(first) is None
    second.accounts.reload(config, fewer)
    assert doubt(second) is None


def polls_of(url: str) -> dict[int, float | None]:
    """When each server was last polled, as the database has it."""
    with Store(url, shared=True) as store:
        return store.read_patiently(
            lambda connection: {
                record.server_id: record.state.last_poll_at for record in fleet.server_records(connection, "main")
            }
        )
