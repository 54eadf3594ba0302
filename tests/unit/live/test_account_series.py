from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from patrolserver_exporter.issues.model import SEVERITIES, Severity
from patrolserver_exporter.live.account_series import AccountCollector, AccountSeries
from patrolserver_exporter.live.encoding import encodable
from patrolserver_exporter.store.history import FIX_DURATION_BOUNDS, Tally, fix_duration_bucket


def registry(*collectors: AccountCollector) -> CollectorRegistry:
    registered = CollectorRegistry()
    for collector in collectors:
        registered.register(collector)
    return registered


def test_unknown_is_absent() -> None:
    """What is not known of an account has no series, so that nothing looks like a failure or a success."""
    values = registry(AccountCollector([AccountSeries(account="a")]))
    for name in ("patrolserver_up", "patrolserver_last_success_timestamp_seconds", "patrolserver_servers"):
        assert values.get_sample_value(name, {"account": "a"}) is None


@pytest.mark.parametrize(("up", "value"), [(True, 1.0), (False, 0.0)])
def test_up(up: bool, value: float) -> None:  # noqa: FBT001  # a parameter of the table
    """An account whose list call succeeded is up."""
    assert (
        registry(AccountCollector([AccountSeries(account="a", up=up)])).get_sample_value(
            "patrolserver_up", {"account": "a"}
        )
        == value
    )


def test_severities_without_a_tally_are_zero() -> None:
    """Every account has every severity from the start, so that the first issue is an increase."""
    values = registry(AccountCollector([AccountSeries(account="a")]))
    for severity in SEVERITIES:
        labels = {"account": "a", "severity": severity.value}
        assert values.get_sample_value("patrolserver_issues_opened_total", labels) == 0
        assert values.get_sample_value("patrolserver_issues_fixed_total", labels) == 0
        assert values.get_sample_value("patrolserver_issues_worsened_total", labels) == 0
        assert values.get_sample_value("patrolserver_issue_fix_duration_seconds_count", labels) == 0


def test_what_got_worse_is_counted() -> None:
    """By the severity reached."""
    tally = Tally(account="a", severity=Severity.CRITICAL, worsened=3)
    values = registry(AccountCollector([AccountSeries(account="a")], [tally]))
    labels = {"account": "a", "severity": "critical"}
    assert values.get_sample_value("patrolserver_issues_worsened_total", labels) == 3


def test_tallies_of_other_accounts_are_not_shown() -> None:
    """An account that is no longer configured has no series left."""
    collector = AccountCollector([], [Tally(account="gone", severity=Severity.LOW, opened=1)])
    assert not [sample for metric in collector.collect() for sample in metric.samples]


def test_fix_durations_become_cumulative() -> None:
    """The tally counts each fix in one bucket; the histogram counts it in all above, too."""
    buckets = [0] * (len(FIX_DURATION_BOUNDS) + 1)
    buckets[0], buckets[2], buckets[-1] = 1, 2, 4
    tally = Tally(account="a", severity=Severity.HIGH, fixed=7, buckets=tuple(buckets), duration_sum=12.5)
    values = registry(AccountCollector([AccountSeries(account="a")], [tally]))
    labels = {"account": "a", "severity": "high"}
    bounds = {"3600.0": 1, "21600.0": 1, "86400.0": 3, "1.5552e+07": 3, "+Inf": 7}
    for bound, count in bounds.items():
        name = "patrolserver_issue_fix_duration_seconds_bucket"
        assert values.get_sample_value(name, {**labels, "le": bound}) == count
    assert values.get_sample_value("patrolserver_issue_fix_duration_seconds_sum", labels) == 12.5
    assert values.get_sample_value("patrolserver_issue_fix_duration_seconds_count", labels) == 7


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (3600.0, 0), (3600.1, 1), (86_400.0, 2), (180 * 86_400.0, 9), (1e9, 10)]
)
def test_upper_bounds_are_included(seconds: float, bucket: int) -> None:
    """A fix that took exactly as long as a bound counts below it."""
    assert fix_duration_bucket(seconds) == bucket


def test_encodable_replaces_lone_surrogates() -> None:
    """Text that UTF-8 cannot carry becomes text that it can."""
    assert encodable("a\ud800é") == "a?é"
