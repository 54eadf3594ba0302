from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.sync.accounts import configured

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.live.effects import (
    AccountShown,
    FeedGrew,
    FleetRestored,
    InboxMoved,
    ServerGone,
    ServerShown,
    TalliesShown,
)
from patrolserver_exporter.live.own_metrics import Telemetry
from patrolserver_exporter.live.publisher import Publisher
from patrolserver_exporter.store.fleet import AccountRecord
from patrolserver_exporter.store.history import Tally

if TYPE_CHECKING:
    from tests.harness.ticking import HeldClock


def server(server_id: int, account: str = "main") -> ServerSummary:
    return ServerSummary(account=account, server_id=server_id, name=f"s{server_id}.example.org")


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
