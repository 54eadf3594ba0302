from __future__ import annotations

import math
import re

import pytest
from msgspec.structs import replace
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import outdated
from tests.unit.sync.accounts import configured
from tests.unit.sync.driving import Driver

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.live.effects import (
    AccountShown,
    FeedGrew,
    FleetRestored,
    InboxMoved,
    PollLost,
    ServerGone,
    ServerShown,
    TalliesShown,
)
from patrolserver_exporter.live.fleet import FleetExposition
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.live.publisher import Publisher
from patrolserver_exporter.store import Store
from patrolserver_exporter.store.fleet import AccountRecord
from patrolserver_exporter.store.history import Tally


def server(server_id: int, account: str = "main") -> ServerSummary:
    return ServerSummary(account=account, server_id=server_id, name=f"s{server_id}.example.org")


@pytest.fixture
def clock() -> HeldClock:
    """A clock that the test moves."""
    return HeldClock()


@pytest.fixture
def publisher(clock: HeldClock) -> Publisher:
    return Publisher(Telemetry(version="0", revision="0", process_metrics=False), clock, configured().metrics)


def scrape(publisher: Publisher) -> str:
    return b"".join(publisher.render(None, None).body).decode()


def test_effects_show_in_the_order_in_which_they_were_committed(publisher: Publisher) -> None:
    """A server that came, went and came back is there once; one that went after a restore is not."""
    publisher.publish([ServerShown(server(1)), ServerGone("main", 1), ServerShown(server(2))])
    text = scrape(publisher)
    assert "s1.example.org" not in text
    assert "s2.example.org" in text
    publisher.publish([FleetRestored(configured().metrics, (), (server(1), server(3)), ()), ServerGone("main", 1)])
    text = scrape(publisher)
    assert [name in text for name in ("s1.", "s2.", "s3.")] == [False, False, True]


def test_labels_of_the_configuration_follow_a_restore_and_a_new_name(publisher: Publisher) -> None:
    """A reload brings other labels to every server; one that gets another name gets the labels of that."""
    rules = {"main": {"s*": {"team": "web"}, "db*": {"team": "x" * 200}}}
    publisher.publish([FleetRestored(configured().metrics, (), (server(1), server(1, "other")), (), rules)])
    infos = re.findall("patrolserver_server_info{.*", scrape(publisher))
    assert [re.findall('account="(.*?)"|team="(.*?)"', info) for info in infos] == [
        [("main", ""), ("", "web")],
        [("other", "")],
    ]
    publisher.publish([ServerShown(replace(server(1), name="DB1"))])
    (team,) = re.findall('team="(.*?)"', scrape(publisher))
    assert len(team) == configured().metrics.max_label_length
    publisher.publish([FleetRestored(configured().metrics, (), (server(1),), ())])
    assert "team=" not in scrape(publisher)


def test_accounts_and_counters_are_shown_and_end_with_a_restore(publisher: Publisher) -> None:
    """A restore shows exactly what it brings: what an account had before that is gone."""
    record = AccountRecord(name="main", up=True, last_success_at=1.5)
    tally = Tally(account="main", severity=Severity.HIGH, opened=3, fixed=1)
    publisher.publish([AccountShown(record, 7), TalliesShown((tally,))])
    text = scrape(publisher)
    assert 'patrolserver_up{account="main"} 1.0' in text
    assert 'patrolserver_servers{account="main"} 7.0' in text
    assert 'patrolserver_issues_opened_total{account="main",severity="high"} 3.0' in text
    publisher.publish([FleetRestored(configured().metrics, ((AccountRecord(name="other", up=True), 3),), (), ())])
    text = scrape(publisher)
    assert 'account="main"' not in text
    assert 'patrolserver_servers{account="other"} 3.0' in text


BOUNDS = [hours * 3600.0 for hours in (1, 6, 24, 72, 168, 336, 720, 1440, 2160, 4320)]
"""Of the buckets of the time to fix, in seconds: 1 h to 180 d."""


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("beyond", [0.0, 0.5])
def test_a_fix_is_shown_in_the_bucket_in_which_it_is_counted(
    prepared_url: str, publisher: Publisher, clock: HeldClock, bound: float, beyond: float
) -> None:
    """What took exactly as long as a bound is in the bucket that ends there, in the store and in a scrape."""
    with Store(prepared_url, publisher.publish) as store:
        driver = Driver(store, clock)
        driver.take_list("web")
        driver.poll(outdated("php"))
        clock.advance(bound + beyond)
        driver.poll()
    bucket = r'fix_duration_seconds_bucket\{account="main",le="(.+)",severity="medium"\} (.+)'
    shown = re.findall(bucket, scrape(publisher))
    assert [float(le) for le, _ in shown] == [*BOUNDS, math.inf]
    assert [float(count) for _, count in shown] == [float(bound + beyond <= le) for le in (*BOUNDS, math.inf)]


def test_an_account_has_as_many_servers_as_are_shown(publisher: Publisher) -> None:
    """Those that a commit brought or took away before are counted; the store need not be."""
    record = AccountRecord(name="main", up=True, last_success_at=1.5)
    server = ServerSummary(account="main", server_id=1, name="web")
    publisher.publish([ServerShown(server), ServerShown(replace(server, server_id=2)), AccountShown(record)])
    assert 'patrolserver_servers{account="main"} 2.0' in scrape(publisher)
    publisher.publish([ServerGone("main", 1), AccountShown(record)])
    assert 'patrolserver_servers{account="main"} 1.0' in scrape(publisher)


def test_an_account_that_was_never_listed_has_no_number_of_servers(publisher: Publisher) -> None:
    """Zero is what a list without servers shows; before the first one nothing is known."""
    for record in (AccountRecord(name="main"), AccountRecord(name="main", up=False)):
        publisher.publish([AccountShown(record, 0)])
        assert "patrolserver_servers{" not in scrape(publisher)
    publisher.publish([AccountShown(AccountRecord(name="main", up=True, last_success_at=1.5), 0)])
    assert 'patrolserver_servers{account="main"} 0.0' in scrape(publisher)


def test_listeners_hear_once_a_commit(publisher: Publisher) -> None:
    """However many deliveries moved in one commit, one call tells of it."""
    heard: list[str] = []
    publisher.on_feed(lambda: heard.append("feed"))
    publisher.on_inbox(lambda: heard.append("inbox"))
    publisher.publish([InboxMoved(), InboxMoved(), ServerShown(server(1))])
    assert heard == ["inbox"]
    publisher.publish([FeedGrew(), FeedGrew()])
    assert heard == ["inbox", "feed"]


def test_the_lag_of_an_event_is_measured_until_it_shows(publisher: Publisher, clock: HeldClock) -> None:
    """From the reception, and never below zero when the clock was set back meanwhile."""
    publisher.publish([ServerShown(server(1), clock.now() - 2.0), ServerShown(server(1), clock.now() + 50.0)])
    publisher.publish([ServerShown(server(1))])
    text = scrape(publisher)
    assert "patrolserver_exporter_event_lag_seconds_sum 2.0" in text
    assert "patrolserver_exporter_event_lag_seconds_count 2.0" in text


def test_an_effect_that_nobody_knows_is_a_mistake(publisher: Publisher) -> None:
    """It is told and counted, and keeps nothing back that was committed with it."""
    with pytest.raises(TypeError, match="object"):
        publisher.publish([object(), ServerShown(server(1))])
    text = scrape(publisher)
    assert "s1.example.org" in text
    assert 'patrolserver_exporter_errors_total{component="exposition"} 1.0' in text


def test_a_server_whose_news_cannot_be_shown_is_not_shown_as_polled(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers may be old; the next that can be shown ends that."""
    polled = replace(server(1), software=(1, 0, 0, 0), last_poll_at=1.0, poll_success=True, poll_complete=True)
    publisher.publish([AccountShown(AccountRecord(name="main", up=True), 1), ServerShown(polled)])
    success = 'patrolserver_server_poll_success{account="main",server="s1.example.org",server_id="1"}'
    with monkeypatch.context() as broken:
        broken.setattr(FleetExposition, "update", failing)
        with pytest.raises(ZeroDivisionError):
            publisher.publish([ServerShown(replace(polled, software=(0, 1, 0, 0)))])
    assert f"{success} 0.0\n" in scrape(publisher)
    publisher.publish([ServerShown(polled)])
    assert f"{success} 1.0\n" in scrape(publisher)


def failing(*_: object) -> None:
    raise ZeroDivisionError


def test_a_listener_that_fails_keeps_no_other_from_hearing(publisher: Publisher) -> None:
    """It is counted and told at the end."""
    heard: list[str] = []
    publisher.on_feed(failing)
    publisher.on_feed(lambda: heard.append("feed"))
    with pytest.raises(ZeroDivisionError):
        publisher.publish([FeedGrew()])
    assert heard == ["feed"]
    assert 'patrolserver_exporter_errors_total{component="exposition"} 1.0' in scrape(publisher)


def test_an_account_whose_list_was_never_read_has_no_counts(publisher: Publisher) -> None:
    """Zeros would look like a clean account; with the list they come, and they stay."""
    publisher.publish([AccountShown(AccountRecord(name="main", up=False))])
    text = scrape(publisher)
    assert 'patrolserver_up{account="main"} 0.0\n' in text
    assert "patrolserver_account_issues{" not in text
    assert "patrolserver_account_servers_affected{" not in text
    publisher.publish([AccountShown(AccountRecord(name="main", up=True, last_success_at=1.0), 0)])
    assert 'patrolserver_account_issues{account="main",severity="critical"} 0.0\n' in scrape(publisher)
    publisher.publish([AccountShown(AccountRecord(name="main", up=False, last_success_at=1.0), 0)])
    assert 'patrolserver_account_servers_affected{account="main",severity="unknown"} 0.0\n' in scrape(publisher)


def test_what_a_turn_brought_and_could_not_be_kept_is_no_success(publisher: Publisher) -> None:
    """Until the server is shown again nobody vouches for it; one that is gone has nothing to lose."""
    shown = replace(
        server(1), software=(1, 0, 0, 0), exploits=0, last_poll_at=1.0, poll_success=True, poll_complete=True
    )
    publisher.publish([AccountShown(AccountRecord(name="main", up=True), 1), ServerShown(shown)])
    publisher.publish([PollLost("main", 1), PollLost("main", 2)])
    labels = 'account="main",server="s1.example.org",server_id="1"'
    text = scrape(publisher)
    assert f"patrolserver_server_poll_success{{{labels}}} 0.0\n" in text
    assert 'patrolserver_account_servers_affected{account="main",severity="none"} 0.0\n' in text
    publisher.publish([ServerShown(shown)])
    assert f"patrolserver_server_poll_success{{{labels}}} 1.0\n" in scrape(publisher)
