from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.live import fleets
from tests.unit.live.oracle import sums_of

from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.live.account_series import OLD, STANDINGS, AccountSeries, AccountSums, SumsOfAccounts
from patrolserver_exporter.live.effects import NewsWaits

NOW = 1_750_000_100.0
UP = AccountSeries(account="default", up=True)


def standings(
    *summaries: ServerSummary, now: float = NOW, reachable: bool = True, news: NewsWaits | None = None
) -> dict[str, int]:
    """How many servers of the default account count where, those without any left out."""
    sums = SumsOfAccounts()
    if news is not None:
        sums.doubt_by(news)
    for summary in summaries:
        sums.put(summary)
    counted = zip(STANDINGS, sums.of("default", now, reachable=reachable).servers, strict=True)
    return {standing: count for standing, count in counted if count}


CLEAN = fleets.server(1)


def test_a_server_that_was_looked_at_is_clean() -> None:
    """None means known and clean."""
    assert standings(CLEAN) == {"none": 1}


def test_a_server_counts_under_its_worst_open_issue() -> None:
    """However many others it has."""
    assert standings(msgspec.structs.replace(CLEAN, open_issues=(0, 1, 7, 0))) == {"high": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"last_poll_at": None, "poll_success": False, "software": None, "open_issues": None},
        {"poll_success": False},
        {"poll_complete": False},
        {"in_doubt": True},
        {"software": (3, 0, 0, 1)},
        {"software": (0, 0, 0, 0)},
        {"exploits": None},
        {"last_poll_at": NOW - OLD - 1},
    ],
    ids=["never polled", "failed", "partial", "in doubt", "unknown software", "empty", "unknown exploits", "old"],
)
def test_what_nobody_can_vouch_for_is_unknown_and_not_clean(changes: dict[str, object]) -> None:
    """Nothing unknown passes for fine."""
    assert standings(msgspec.structs.replace(CLEAN, **changes)) == {"unknown": 1}


def test_a_known_issue_does_not_hide_that_more_may_be_unknown_nor_the_other_way_round() -> None:
    """A server with an issue whose last poll failed counts under both."""
    server = msgspec.structs.replace(fleets.server(1, issues=2), poll_success=False)
    assert standings(server) == {"critical": 1, "unknown": 1}


def test_nobody_vouches_for_the_servers_of_an_account_that_cannot_be_reached() -> None:
    """Its issues stay known."""
    assert standings(CLEAN, fleets.server(2, issues=1), reachable=False) == {"critical": 1, "unknown": 2}


def test_nobody_vouches_for_servers_that_a_waiting_delivery_may_be_about() -> None:
    """Nor for those that were polled before deliveries that could not be taken in; their issues stay known."""
    late = msgspec.structs.replace(fleets.server(3), last_poll_at=NOW - 1.0)
    early = msgspec.structs.replace(CLEAN, last_poll_at=NOW - 100.0)
    issue = msgspec.structs.replace(fleets.server(2, issues=1), last_poll_at=NOW - 100.0)
    servers = (early, issue, late)
    assert standings(*servers) == {"critical": 1, "none": 2}
    assert standings(*servers, news=NewsWaits(frozenset({"default"}), {})) == {"critical": 1, "unknown": 3}
    assert standings(*servers, news=NewsWaits(frozenset({"other"}), {"other": NOW})) == {"critical": 1, "none": 2}
    assert standings(*servers, news=NewsWaits(frozenset(), {"default": NOW - 50.0})) == {
        "critical": 1,
        "none": 1,
        "unknown": 2,
    }


def test_accounts_whose_deliveries_wait_or_do_no_longer_are_counted_again() -> None:
    """And no others."""
    sums = SumsOfAccounts()
    sums.doubt_by(NewsWaits(frozenset({"a", "b"}), {"c": 1.0}))
    assert sums.take_changed(NOW) == {"a", "b", "c"}
    sums.doubt_by(NewsWaits(frozenset({"b"}), {"c": 2.0}))
    assert sums.take_changed(NOW) == {"a", "c"}
    sums.doubt_by(NewsWaits(frozenset({"b"}), {"c": 2.0}))
    assert sums.take_changed(NOW) == set()


def test_an_account_without_servers_has_zeros() -> None:
    """A missing series would look like a missing exporter."""
    assert SumsOfAccounts().of("default", NOW, reachable=True) == AccountSums((0, 0, 0, 0), (0, 0, 0, 0, 0, 0))


@given(
    st.lists(st.tuples(fleets.summaries, st.booleans(), st.floats(0, OLD)), max_size=12),
    st.booleans(),
)
def test_sums_are_those_of_counting_anew(
    steps: list[tuple[ServerSummary, bool, float]],
    up: bool,  # noqa: FBT001  # drawn
) -> None:
    """Whatever comes, changes, goes and gets old."""
    sums, model, now = SumsOfAccounts(), dict[tuple[str, int], ServerSummary](), 0.0
    for drawn, removed, pause in steps:
        summary = msgspec.structs.replace(drawn, account="default", server_id=drawn.server_id % 3, last_poll_at=now)
        now += pause
        if removed:
            model.pop((summary.account, summary.server_id), None)
            sums.remove(summary.account, summary.server_id)
        else:
            model[summary.account, summary.server_id] = summary
            sums.put(summary)
        expected = sums_of(model.values(), msgspec.structs.replace(UP, up=up), now)
        assert sums.of("default", now, reachable=up) == expected
