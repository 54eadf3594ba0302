from __future__ import annotations

from msgspec.structs import replace

from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.store.views import FleetFilter, FleetTotals, FleetView, PollState
from patrolserver_exporter.web.pages import fleet
from patrolserver_exporter.web.pages.accounts import AccountView, Freshness, by_account
from patrolserver_exporter.web.pages.notices import Notice
from patrolserver_exporter.web.pages.paths import Paths
from patrolserver_exporter.web.pages.words import moment

NOW = 1_800_000_000.0
NONE = FleetTotals(servers=0, issues=(0, 0, 0, 0), affected=(0, 0, 0, 0), clean=0, waived=0)
FINE = replace(NONE, servers=3, clean=3)
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
    assert fleet.verdict(replace(FINE, clean=0), [account(fresh=Freshness(never=3))], ()).tone == "unknown"


def test_no_server_is_told_apart_from_no_answer() -> None:
    """An empty account is something else than one that never answered."""
    assert fleet.verdict(NONE, [account()], ()).text == "No server is watched"
    assert fleet.verdict(NONE, [account(answered=False)], ()).text.startswith("Waiting")


def test_a_tile_leads_to_its_servers() -> None:
    """Each number is a link to the list behind it."""
    critical, *_ = fleet.tiles(replace(FINE, issues=(3, 0, 0, 0), affected=(2, 0, 0, 0)), Paths(), FleetFilter())
    assert (critical.issues, critical.servers) == ("3", "on 2 servers")
    assert critical.link == "/?severity=critical#servers"


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


def test_doubtful_data_is_marked() -> None:
    """A failed poll and data older than a day are said in the row."""
    assert fleet.marker(replace(POLLED, poll_success=False), NOW) == "last poll failed"
    assert fleet.marker(replace(POLLED, last_poll_at=NOW - 86_401), NOW) == "older than 24 hours"


def test_a_server_without_a_visible_name_can_still_be_clicked() -> None:
    """Its id takes the name's place."""
    assert fleet.row(replace(POLLED, name=" "), Paths(), NOW).name == "Server 7"


def test_the_pager_links_the_neighbours_and_keeps_the_filter() -> None:
    """In the middle of a list there are two ways, at its ends one."""
    wanted = FleetFilter(search="web")
    middle = FleetView(rows=(POLLED,) * 50, offset=50, matching=120, totals=NONE, accounts={})
    pager = fleet.pager(middle, wanted, Paths())
    assert (pager.text, pager.previous, pager.next) == (
        "51–100 of 120 servers",
        "/?q=web#servers",
        "/?q=web&page=3#servers",
    )
    last = FleetView(rows=(POLLED,) * 20, offset=100, matching=120, totals=NONE, accounts={})
    assert fleet.pager(last, wanted, Paths()).next is None


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
