from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from patrolserver_exporter.inbox.deliveries import Doubts
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.store.queries import ServerKey
from patrolserver_exporter.store.views import FleetTotals, PollState
from patrolserver_exporter.web.overview import servers_of
from patrolserver_exporter.web.pages import fleet
from patrolserver_exporter.web.pages.accounts import AccountView, Freshness, by_account
from patrolserver_exporter.web.pages.lists import columns, pager
from patrolserver_exporter.web.pages.notices import Notice
from patrolserver_exporter.web.pages.paths import Paths, Wanted
from patrolserver_exporter.web.pages.words import moment

NOW = 1_800_000_000.0
NONE = FleetTotals(servers=0, issues=(0, 0, 0, 0), affected=(0, 0, 0, 0), waived=0)
FINE = replace(NONE, servers=3)
POLLED = ServerSummary(
    account="main",
    server_id=7,
    name="web-01",
    open_issues=(1, 0, 2, 0),
    software=(30, 2, 1, 0),
    last_poll_at=NOW - 60,
    poll_success=True,
    poll_complete=True,
)


def account(*, answered: bool = True, fresh: Freshness | None = None) -> AccountView:
    return AccountView(
        name="main",
        servers=3,
        state="Working",
        tone="good",
        trouble=None,
        credentials_refused=False,
        last_success=moment(NOW, NOW) if answered else None,
        polled_every="15 minutes",
        oldest_poll=None,
        webhook=True,
        waiting=0,
        waiting_since=None,
        overflowed=None,
        fresh=fresh or Freshness(oldest_at=NOW - 60),
    )


def test_critical_issues_are_the_first_thing_said() -> None:
    """The number, and on how many servers."""
    totals = replace(FINE, issues=(3, 9, 0, 0), affected=(2, 5, 0, 0))
    assert fleet.verdict(totals, [account()], ()) == fleet.Verdict("3 critical issues on 2 servers", "bad")


def test_high_issues_come_next() -> None:
    """It is said too that none is critical."""
    totals = replace(FINE, issues=(0, 1, 7, 0), affected=(0, 1, 5, 0))
    assert fleet.verdict(totals, [account()], ()) == fleet.Verdict("1 high issue on 1 server, none critical", "bad")


def test_a_fleet_without_issues_is_good_news() -> None:
    """Only when everything is known."""
    assert fleet.verdict(FINE, [account()], ()) == fleet.Verdict("No open issue", "good")


def test_minor_issues_are_no_alarm() -> None:
    """Medium and low ones are told in the tiles."""
    assert fleet.verdict(replace(FINE, issues=(0, 0, 4, 1)), [account()], ()).tone == "warn"


def test_data_with_gaps_is_never_good_news() -> None:
    """While something is wrong with the watching, nobody is told that all is fine."""
    broken = Notice("It is broken.", "Mend it.")
    assert fleet.verdict(FINE, [account()], [broken]).tone == "unknown"
    assert fleet.verdict(replace(FINE, issues=(0, 0, 1, 0)), [account()], [broken]).tone == "unknown"


def test_a_fleet_that_nobody_polled_is_unknown() -> None:
    """Servers that were only listed have no issue and no good news."""
    assert fleet.verdict(FINE, [account(fresh=Freshness(never=3))], ()).tone == "unknown"


def test_servers_that_nobody_can_vouch_for_are_no_good_news() -> None:
    """One that was never polled, or whose software is in a state that nobody knows, may have any issue."""
    for totals in (FINE, replace(FINE, issues=(0, 0, 4, 1))):
        told = fleet.verdict(totals, [account()], (), 2)
        assert told == fleet.Verdict("No critical or high issue is known, but 2 servers are unknown", "unknown")
    critical = replace(FINE, issues=(3, 0, 0, 0), affected=(2, 0, 0, 0))
    assert fleet.verdict(critical, [account()], (), 2).tone == "bad"


def test_no_server_is_told_apart_from_no_answer() -> None:
    """An empty account is something else than one that never answered."""
    assert fleet.verdict(NONE, [account()], ()).text == "No server is watched"
    assert fleet.verdict(NONE, [account(answered=False)], ()).text.startswith("Waiting")


@pytest.mark.parametrize("changes", [{"trouble": "status 401"}, {"credentials_refused": True}])
def test_an_answer_that_is_no_list_is_not_waited_for(changes: dict[str, Any]) -> None:
    """A refused key was answered; what is missing is the list."""
    refused = dataclasses.replace(account(answered=False), **changes)
    assert fleet.verdict(NONE, [account(answered=False), refused], ()).text == "No server list was read yet"


def test_a_tile_leads_to_its_issues_and_to_its_servers() -> None:
    """Each number is a link to the list behind it: just that severity, and no waived ones."""
    critical, *_ = fleet.tiles(replace(FINE, issues=(3, 0, 0, 0), affected=(2, 0, 0, 0)), Paths())
    assert (critical.figure, critical.note) == ("3", "on 2 servers")
    assert critical.link == "/issues?severity=critical&waived=false"
    assert critical.note_link == "/?severity=critical#servers"


STATES = [
    PollState("a", 1, NOW - 10, poll_success=True, open_issues=(0, 0, 0, 0), software=(5, 0, 0, 0), exploits=0),
    PollState("a", 2, NOW - 90_000, poll_success=True, open_issues=(0, 0, 0, 0), software=(5, 0, 0, 0), exploits=0),
    PollState("a", 3),
    PollState("a", 4, NOW - 50, poll_success=True, open_issues=(1, 0, 0, 0), software=(5, 2, 0, 0), exploits=1),
]
KEYS = [ServerKey("a", number) for number in (4, 3, 2, 1)]


@pytest.mark.parametrize(
    ("state", "found"),
    [("open", [4]), ("clean", [1]), ("unknown", [3, 2]), ("never", [3]), ("scanning", []), ("", [4, 3, 2, 1])],
)
def test_servers_are_filtered_by_how_they_stand(state: str, found: list[int]) -> None:
    """Old data is unknown and not clean; one that was never polled is unknown, too."""
    servers = servers_of(STATES, {}, NOW)
    assert [key.server_id for key in fleet.standing(KEYS, servers, state, "", reverse=False)] == found


@pytest.mark.parametrize(
    ("news", "clean"),
    [
        (Doubts(frozenset(), {}), [1]),
        (Doubts(frozenset({"a"}), {}), []),
        (Doubts(frozenset({"b"}), {"b": NOW}), [1]),
        (Doubts(frozenset(), {"a": NOW - 5}), []),
        (Doubts(frozenset(), {"a": NOW - 20}), [1]),
    ],
    ids=["nothing", "one waits", "of another account", "lost since the poll", "lost before it"],
)
def test_no_server_is_clean_that_a_waiting_delivery_may_be_about(news: Doubts, clean: list[int]) -> None:
    """The page says what the gate says."""
    servers = servers_of(STATES, {}, NOW, news=news)
    assert [key.server_id for key in fleet.standing(KEYS, servers, "clean", "", reverse=False)] == clean


@pytest.mark.parametrize(
    ("sort", "found"), [("polled", [3, 2, 4, 1]), ("software", [3, 4, 2, 1]), ("exploits", [3, 4, 2, 1])]
)
def test_what_nobody_knows_comes_first(sort: str, found: list[int]) -> None:
    """In every order that the standing tells; a click turns it round."""
    servers = servers_of(STATES, {}, NOW)
    assert [key.server_id for key in fleet.standing(KEYS, servers, "", sort, reverse=False)] == found
    turned = fleet.standing(list(reversed(KEYS)), servers, "", sort, reverse=True)
    assert turned[-1].server_id == 3


def test_the_tiles_of_standing_are_the_lists_behind_them() -> None:
    """As many clean and unknown servers as their filter leaves."""
    servers = servers_of(STATES, {}, NOW)
    clean, unknown, _ = fleet.standing_tiles(NONE, servers, Paths())
    assert (clean.count, unknown.count) == (1, 2)
    assert clean.link == "/?state=clean#servers"


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_round() -> None:
    """The heading that rules tells so; the usual order needs no word in the link."""
    shown = columns(
        Wanted(sort="name"), "worst", (("worst", "Severity", False), ("name", "Server", False)), Paths().fleet
    )
    assert [(one.sorted, one.link) for one in shown] == [("", "/"), ("descending", "/?sort=-name")]


def test_a_row_shows_counts_software_and_ages() -> None:
    """What is fine is left out of the words."""
    row = fleet.row(POLLED, Paths(), NOW)
    assert [(count.severity, count.issues) for count in row.counts][:2] == [("critical", 1), ("high", 0)]
    assert row.software == "1 unsupported, 2 outdated of 33"
    assert row.polled
    assert (row.polled.words, row.marker) == ("1 minute ago", "")


def test_a_server_without_a_poll_shows_no_numbers() -> None:
    """Zero would look like good news."""
    row = fleet.row(ServerSummary(account="main", server_id=7, name="web-01"), Paths(), NOW)
    assert {count.issues for count in row.counts} == {None}
    assert (row.software, row.marker) == ("", "not polled yet")


@pytest.mark.parametrize("changes", [{"last_poll_at": None}, {"software": None}, {"software": (0, 0, 0, 0)}])
def test_no_issue_is_no_zero_where_nobody_looked(changes: dict[str, Any]) -> None:
    """Before the first poll and without any software; what an event reported is a number all the same."""
    row = fleet.row(replace(POLLED, **changes), Paths(), NOW)
    assert [count.issues for count in row.counts] == [1, None, 2, None]


def test_doubtful_data_is_marked() -> None:
    """A failed poll and data older than a day are said in the row."""
    assert fleet.marker(replace(POLLED, poll_success=False), NOW) == "last poll failed"
    assert fleet.marker(replace(POLLED, last_poll_at=NOW - 86_401), NOW) == "older than 24 hours"


def test_a_server_without_a_visible_name_can_still_be_clicked() -> None:
    """Its id takes the name's place."""
    assert fleet.row(replace(POLLED, name=" "), Paths(), NOW).name == "Server 7"


def test_the_pager_links_neighbours_and_ends_and_keeps_the_filter() -> None:
    """In the middle of a list there are four ways, at its ends fewer."""
    link = partial(Paths().fleet, Wanted(search="web"))
    middle = pager(offset=100, shown=50, matching=320, link=link, noun="server")
    assert (middle.text, middle.page, middle.last) == ("101–150 of 320 servers", 3, 7)
    assert (middle.first_link, middle.previous) == ("/?q=web", "/?q=web&page=2")
    assert (middle.next, middle.last_link) == ("/?q=web&page=4", "/?q=web&page=7")
    last = pager(offset=100, shown=20, matching=120, link=link, noun="server")
    assert (last.next, last.last_link) == (None, None)
    assert pager(offset=0, shown=1, matching=1, link=link, noun="server").text == "1 server"


def test_freshness_is_counted_by_account() -> None:
    """One server may be both failed and old; one without a poll is neither."""
    states = [
        PollState("a", 1, NOW - 10, poll_success=True),
        PollState("a", 2, NOW - 90_000, poll_success=False),
        PollState("a", 3),
        PollState("b", 1, NOW - 20, poll_success=True),
    ]
    assert by_account(states, NOW) == {
        "a": Freshness(never=1, failed=1, old=1, oldest_at=NOW - 90_000),
        "b": Freshness(oldest_at=NOW - 20),
    }
