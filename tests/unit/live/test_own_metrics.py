from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from patrolserver_exporter.live.encoding import negotiate, plain
from patrolserver_exporter.live.own_metrics import COMPONENTS, ENDPOINTS, IDENTIFIERS, OUTCOMES, InboxState, Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

OWN = "patrolserver_exporter"


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(version="1.2.3", revision="abc", process_metrics=False)


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """The value of one series, found by name and labels."""
    for metric in text_string_to_metric_families(text(telemetry)):
        for sample in metric.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def text(telemetry: Telemetry) -> str:
    chosen = negotiate(None)
    return b"".join(b"".join(plain(shown.pieces(chosen, None))) for shown in telemetry.shown).decode()


def test_build_info(telemetry: Telemetry) -> None:
    """The running build tells its version, revision and Python."""
    assert 'patrolserver_exporter_build_info{pythonversion="3.' in text(telemetry)
    assert 'revision="abc",version="1.2.3"} 1.0' in text(telemetry)


def test_closed_sets_start_at_zero(telemetry: Telemetry) -> None:
    """What can be counted is there from the start, so that its first increase is seen."""
    for identifier in IDENTIFIERS:
        for outcome in OUTCOMES:
            assert value(telemetry, f"{OWN}_webhook_deliveries_total", identifier=identifier, outcome=outcome) == 0
    for component in COMPONENTS:
        assert value(telemetry, f"{OWN}_errors_total", component=component) == 0
    for reason in ("server_limit", "total_limit"):
        assert value(telemetry, f"{OWN}_series_dropped_total", reason=reason) == 0


def test_deliveries_count_by_identifier_and_outcome(telemetry: Telemetry) -> None:
    """A delivery counts under its identifier; invented identifiers add no series."""
    telemetry.delivery("webhook.scan_finished", "accepted")
    telemetry.delivery("webhook.invented", "refused")
    telemetry.delivery("webhook.also_invented", "refused")
    name = f"{OWN}_webhook_deliveries_total"
    assert value(telemetry, name, identifier="webhook.scan_finished", outcome="accepted") == 1
    assert value(telemetry, name, identifier="other", outcome="refused") == 2
    assert "invented" not in text(telemetry)


def test_api_calls_and_failures_are_two_counters(telemetry: Telemetry) -> None:
    """A failed call counts as a call too, and its duration is observed."""
    telemetry.api_call("main", "software", 0.2, None)
    telemetry.api_call("main", "software", 11.0, "timeout")
    telemetry.api_call("main", "unheard_of", 0.1, None)
    labels = {"account": "main", "endpoint": "software"}
    assert value(telemetry, f"{OWN}_api_requests_total", **labels) == 2
    assert value(telemetry, f"{OWN}_api_request_failures_total", **labels, reason="timeout") == 1
    assert value(telemetry, f"{OWN}_api_request_duration_seconds_bucket", **labels, le="0.25") == 1
    assert value(telemetry, f"{OWN}_api_request_duration_seconds_count", **labels) == 2
    assert value(telemetry, f"{OWN}_api_requests_total", account="main", endpoint="other") == 1


def test_accounts_start_at_zero_and_leave_nothing(telemetry: Telemetry) -> None:
    """An account's series are there from its start and gone with it; other accounts keep theirs."""
    for account in ("a", "ab\ud800"):
        telemetry.watch_account(account)
        telemetry.api_call(account, "event", 0.1, "timeout")
        telemetry.api_budget(account, 9.5)
        telemetry.poll_interval(account, 900)
        telemetry.inbox_overflow(account)
        telemetry.wire_oddity(account, 3)
    for endpoint in ENDPOINTS:
        of_endpoint = {"account": "a", "endpoint": endpoint}
        assert value(telemetry, f"{OWN}_api_requests_total", **of_endpoint) == (endpoint == "event")
        assert value(telemetry, f"{OWN}_api_request_duration_seconds_count", **of_endpoint) == (endpoint == "event")
    assert value(telemetry, f"{OWN}_api_budget_available_requests", account="ab?") == 9.5
    assert value(telemetry, f"{OWN}_poll_interval_seconds", account="ab?") == 900
    assert value(telemetry, f"{OWN}_inbox_overflows_total", account="ab?") == 1
    assert value(telemetry, f"{OWN}_wire_oddities_total", account="ab?") == 3
    telemetry.forget_account("ab\ud800")
    assert 'account="a"' in text(telemetry)
    assert 'account="ab?"' not in text(telemetry)


def test_reload_success_keeps_its_time_when_the_next_fails(telemetry: Telemetry) -> None:
    """A failed reload shows, beside the time of the last one that worked."""
    telemetry.config_loaded(1_750_000_000.0)
    telemetry.config_failed()
    assert value(telemetry, f"{OWN}_config_last_reload_successful") == 0
    assert value(telemetry, f"{OWN}_config_last_reload_success_timestamp_seconds") == 1_750_000_000.0
    telemetry.config_loaded(1_750_000_100.0)
    assert value(telemetry, f"{OWN}_config_last_reload_successful") == 1


def test_event_lag_reaches_from_milliseconds_to_an_hour(telemetry: Telemetry) -> None:
    """Quick and late events fall into different buckets."""
    for lag in (0.01, 3599.0, 7200.0):
        telemetry.event_visible(lag)
    name = f"{OWN}_event_lag_seconds_bucket"
    assert [value(telemetry, name, le=bound) for bound in ("0.05", "900.0", "3600.0", "+Inf")] == [1, 1, 2, 3]


def test_dropped_series_and_errors_count(telemetry: Telemetry) -> None:
    """What limits cut off and what went wrong is counted where it belongs."""
    telemetry.series_dropped("total_limit", 40)
    telemetry.error("poller")
    assert value(telemetry, f"{OWN}_series_dropped_total", reason="total_limit") == 40
    assert value(telemetry, f"{OWN}_errors_total", component="poller") == 1


def test_inbox_is_asked_at_each_scrape(telemetry: Telemetry) -> None:
    """The inbox's rows are those of the moment; a state without rows has no oldest one."""
    states = [
        InboxState(state="retry", deliveries=2, oldest_at=1_750_000_000.0),
        InboxState(state="dead", deliveries=0),
    ]
    telemetry.watch_inbox(lambda: states)
    assert value(telemetry, f"{OWN}_inbox_deliveries", state="retry") == 2
    assert value(telemetry, f"{OWN}_inbox_oldest_timestamp_seconds", state="retry") == 1_750_000_000.0
    assert value(telemetry, f"{OWN}_inbox_deliveries", state="dead") == 0
    assert value(telemetry, f"{OWN}_inbox_oldest_timestamp_seconds", state="dead") is None
    states.pop(0)
    assert value(telemetry, f"{OWN}_inbox_deliveries", state="retry") is None


def test_process_metrics_can_be_left_out() -> None:
    """The families about the process and Python come unless they are switched off."""
    names = ("process_resident_memory_bytes", "python_info", "python_gc_collections_total")
    shown = text(Telemetry(version="1", revision="x"))
    hidden = text(Telemetry(version="1", revision="x", process_metrics=False))
    for name in names:
        assert f"\n{name}" in shown
        assert name not in hidden


def test_nothing_enters_the_global_registry(telemetry: Telemetry) -> None:
    """Other users of the client library in the process see nothing of this."""
    telemetry.delivery("webhook.test", "accepted")
    assert not [metric for metric in REGISTRY.collect() if metric.name.startswith("patrolserver")]


def test_taken_names_are_refused(telemetry: Telemetry) -> None:
    """Two collectors cannot claim one name, which would break the exposition."""

    class Again:
        def collect(self) -> Iterable[Metric]:
            return [GaugeMetricFamily(f"{OWN}_build_info", "x", value=1)]

    with pytest.raises(ValueError, match="Duplicated"):
        telemetry.register(Again())


def test_failures_of_a_watched_account_start_at_zero(telemetry: Telemetry) -> None:
    """The first failure of each kind is an increase, so an alert on it needs no second one."""
    telemetry.watch_account("main")
    for reason in ("credentials", "timeout", "rate_limited"):
        labels = {"account": "main", "endpoint": "servers", "reason": reason}
        assert value(telemetry, f"{OWN}_api_request_failures_total", **labels) == 0


def test_what_only_the_owner_knows_ends_with_the_ownership(telemetry: Telemetry) -> None:
    """Budget and interval of an account that another exporter polls from now on; what was counted stays."""
    telemetry.api_call("main", "servers", 0.1, None)
    telemetry.api_budget("main", 7.0)
    telemetry.poll_interval("main", 900.0)
    owned = (f"{OWN}_api_budget_available_requests", f"{OWN}_poll_interval_seconds")
    assert [value(telemetry, name, account="main") for name in owned] == [7.0, 900.0]
    telemetry.disown("main")
    telemetry.disown("unknown")
    assert [value(telemetry, name, account="main") for name in owned] == [None, None]
    assert value(telemetry, f"{OWN}_api_requests_total", account="main", endpoint="servers") == 1.0
