from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.live.oracle import AccountCollector, CountersOracle, gate_families, now_families

from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.issues.model import SEVERITIES, Severity
from patrolserver_exporter.live.account_counters import AccountCounters
from patrolserver_exporter.live.account_series import AccountExposition, AccountNow, AccountSeries, accounts_now
from patrolserver_exporter.live.encoding import encodable, encode, negotiate, plain
from patrolserver_exporter.live.gate_series import Judged, gate_series
from patrolserver_exporter.store.history import FIX_DURATION_BOUNDS, Tally, fix_duration_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

    from patrolserver_exporter.live.encoding import Format, Piece

FORMATS = (negotiate(None), negotiate("application/openmetrics-text; version=1.0.0"))


class Values:
    """What a scrape shows of accounts."""

    def __init__(self, accounts: Iterable[AccountSeries], tallies: Iterable[Tally] = ()) -> None:
        exposition = AccountExposition()
        for series in accounts:
            exposition.show(series)
        exposition.tally(tallies)
        text = b"".join(plain(exposition.pieces(FORMATS[0], None, 0.0))).decode()
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def get_sample_value(self, name: str, labels: dict[str, str]) -> float | None:
        """One value."""
        return next((one.value for one in self.samples if (one.name, one.labels) == (name, labels)), None)


def test_unknown_is_absent() -> None:
    """What is not known of an account has no series, so that nothing looks like a failure or a success."""
    values = Values([AccountSeries(account="a")])
    for name in ("patrolserver_up", "patrolserver_last_success_timestamp_seconds", "patrolserver_servers"):
        assert values.get_sample_value(name, {"account": "a"}) is None


@pytest.mark.parametrize(("up", "value"), [(True, 1.0), (False, 0.0)])
def test_up(up: bool, value: float) -> None:  # noqa: FBT001  # a parameter of the table
    """An account whose list call succeeded is up."""
    values = Values([AccountSeries(account="a", up=up)])
    assert values.get_sample_value("patrolserver_up", {"account": "a"}) == value


def test_severities_without_a_tally_are_zero() -> None:
    """Every account has every severity from the start, so that the first issue is an increase."""
    values = Values([AccountSeries(account="a")])
    for severity in SEVERITIES:
        labels = {"account": "a", "severity": severity.value}
        assert values.get_sample_value("patrolserver_issues_opened_total", labels) == 0
        assert values.get_sample_value("patrolserver_issues_fixed_total", labels) == 0
        assert values.get_sample_value("patrolserver_issues_worsened_total", labels) == 0
        assert values.get_sample_value("patrolserver_issue_fix_duration_seconds_count", labels) == 0


def test_what_got_worse_is_counted() -> None:
    """By the severity reached."""
    tally = Tally(account="a", severity=Severity.CRITICAL, worsened=3)
    values = Values([AccountSeries(account="a")], [tally])
    labels = {"account": "a", "severity": "critical"}
    assert values.get_sample_value("patrolserver_issues_worsened_total", labels) == 3


def test_tallies_of_other_accounts_are_not_shown() -> None:
    """An account that is no longer configured has no series left."""
    assert not Values([], [Tally(account="gone", severity=Severity.LOW, opened=1)]).samples


def test_fix_durations_become_cumulative() -> None:
    """The tally counts each fix in one bucket; the histogram counts it in all above, too."""
    buckets = [0] * (len(FIX_DURATION_BOUNDS) + 1)
    buckets[0], buckets[2], buckets[-1] = 1, 2, 4
    tally = Tally(account="a", severity=Severity.HIGH, fixed=7, buckets=tuple(buckets), duration_sum=12.5)
    values = Values([AccountSeries(account="a")], [tally])
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


# Each family is, to the byte, what the client library makes of the same values.

ACCOUNTS = st.sampled_from(["main", 'odd "name"\\', "zwei\nzeilen", "b\ud800"])
NUMBERS = st.floats(0.0, 1e12, allow_nan=False) | st.integers(0, 2000)
MAYBE = st.none() | NUMBERS


def same(
    pieces: Callable[[Format, frozenset[str] | None], Iterable[Piece]],
    families: Callable[[], Iterable[Metric]],
    name: str,
) -> None:
    """All of it, in both formats, and restricted to one name; the order of accounts is nobody's business."""
    for chosen in FORMATS:
        for names in (None, frozenset({name})):
            shown = b"".join(plain(pieces(chosen, names))).splitlines()
            assert sorted(shown) == sorted(encode(families(), chosen, names).splitlines())


@given(
    st.lists(
        st.builds(
            AccountSeries,
            account=ACCOUNTS,
            up=st.none() | st.booleans(),
            last_success_at=MAYBE,
            servers=st.none() | st.integers(0, 200_000),
            list_complete=st.none() | st.booleans(),
        )
    ),
    st.lists(
        st.builds(
            Tally,
            account=ACCOUNTS,
            severity=st.sampled_from(Severity),
            opened=st.integers(0, 3000),
            fixed=st.integers(0, 3000),
            worsened=st.integers(0, 3000),
            duration_sum=NUMBERS,
            buckets=st.tuples(*[st.integers(0, 1500)] * (len(FIX_DURATION_BOUNDS) + 1)),
        )
    ),
)
def test_accounts_are_written_as_the_library_does(accounts: list[AccountSeries], tallies: list[Tally]) -> None:
    """In whatever order they came, what was shown last counts."""
    exposition = AccountExposition()
    latest = {}
    counters = {}
    for series in accounts:
        exposition.show(series)
        latest[series.account] = series
        list(exposition.pieces(FORMATS[0], None, 0.0))
    for tally in tallies:
        exposition.tally([tally])
        counters[tally.account, tally.severity] = tally
    same(
        lambda chosen, names: exposition.pieces(chosen, names, 0.0),
        AccountCollector(latest.values(), counters.values()).collect,
        "patrolserver_issue_fix_duration_seconds_bucket",
    )


@given(
    st.lists(
        st.lists(
            st.builds(
                AccountNow,
                account=ACCOUNTS,
                webhook_enabled=st.booleans(),
                owned=st.booleans(),
                last_delivery_at=MAYBE,
                pause_until=MAYBE,
                clock_offset=st.none() | st.floats(-1e6, 1e6),
            ),
            unique_by=lambda one: one.account,
        ),
        max_size=4,
    )
)
def test_accounts_as_they_are_now_are_written_as_the_library_does(steps: list[list[AccountNow]]) -> None:
    """From scrape to scrape, accounts that come, change and go."""
    found: list[AccountNow] = []
    shown = accounts_now(lambda: found)
    for step in steps:
        found[:] = step
        same(shown.pieces, lambda: now_families(found), "patrolserver_exporter_account_owner")


@given(
    st.lists(
        st.lists(
            st.builds(
                Judged,
                account=ACCOUNTS,
                policy=st.sampled_from(["builtin", "strict"]),
                servers=st.dictionaries(st.sampled_from(Verdict), st.integers(0, 3000)),
            ),
            unique_by=lambda one: (one.account, one.policy),
        ),
        max_size=4,
    )
)
def test_the_gate_is_written_as_the_library_does(steps: list[list[Judged]]) -> None:
    """From scrape to scrape, accounts and policies that come, change and go."""
    found: list[Judged] = []
    shown = gate_series(lambda: found)
    for step in steps:
        found[:] = step
        same(shown.pieces, lambda: gate_families(found), "patrolserver_gate_servers")


ENDPOINTS = st.sampled_from(["servers", "event"])
STEPS = st.one_of(
    st.tuples(st.just("call"), ACCOUNTS, ENDPOINTS, st.floats(0.0, 20.0), st.sampled_from([None, "timeout", "tls"])),
    st.tuples(st.sampled_from(["watch", "forget", "overflow", "scrape"]), ACCOUNTS),
    st.tuples(st.sampled_from(["budget", "interval"]), ACCOUNTS, NUMBERS),
    st.tuples(st.just("oddity"), ACCOUNTS, st.integers(1, 1200)),
)


@given(st.lists(STEPS, max_size=30))
def test_counters_are_written_as_the_library_does(steps: list[tuple[str, ...]]) -> None:
    """Whatever is counted in whatever order, with or without a scrape between."""
    counters, oracle = AccountCounters(), CountersOracle()
    endpoints, reasons = ["servers", "event"], ["timeout", "tls"]
    for step in steps:
        count(counters, oracle, step, endpoints, reasons)
    for name in ("patrolserver_exporter_api_request_duration_seconds_sum", "patrolserver_exporter_wire_oddities_total"):
        same(counters.pieces, oracle.collect, name)


def count(  # Any step on both sides.
    counters: AccountCounters,
    oracle: CountersOracle,
    step: tuple[object, ...],
    endpoints: list[str],
    reasons: list[str],
) -> None:
    match step:
        case ("call", str(account), str(endpoint), float(seconds), reason):
            counters.call(account, endpoint, seconds, None if reason is None else str(reason))
            oracle.call(encodable(account), endpoint, seconds, None if reason is None else str(reason))
        case ("watch", str(account)):
            counters.watch(account, endpoints, reasons)
            oracle.watch(encodable(account), endpoints, reasons)
        case ("forget", str(account)):
            counters.forget(account)
            oracle.forget(encodable(account))
        case ("overflow", str(account)):
            counters.overflow(account)
            oracle.overflows.labels(encodable(account)).inc()
        case ("oddity", str(account), int(times)):
            counters.oddity(account, times)
            oracle.oddities.labels(encodable(account)).inc(times)
        case ("budget", str(account), float() | int() as value):
            counters.set_budget(account, value)
            oracle.budget.labels(encodable(account)).set(value)
        case ("interval", str(account), float() | int() as value):
            counters.set_interval(account, value)
            oracle.interval.labels(encodable(account)).set(value)
        case ("scrape", _):
            same(counters.pieces, oracle.collect, "patrolserver_exporter_api_requests_total")


def test_an_account_that_did_not_change_keeps_its_bytes() -> None:
    """A call of one account renders its endpoint's lines alone; nothing is compressed anew in other blocks."""
    counters = AccountCounters()
    for number in range(200):
        counters.watch(f"account{number}", ["servers", "event"], ["timeout"])
    before = counters.pieces(FORMATS[0], None)
    assert all(new is old for new, old in zip(counters.pieces(FORMATS[0], None), before, strict=True))
    counters.call("account77", "event", 0.1, None)
    after = counters.pieces(FORMATS[0], None)
    # Calls, failures and durations of a block; of these the failures did not change.
    assert sum(new is not old for new, old in zip(after, before, strict=True)) == 2
