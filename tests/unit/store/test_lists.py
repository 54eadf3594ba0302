"""Lists over a small fleet: who is in them, in what order, and page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.harness.ticking import HeldClock
from tests.unit.issues.builders import exploited, outdated, unsupported
from tests.unit.sync.driving import Driver

from patrolserver_exporter.patrolserver.models import Exploit
from patrolserver_exporter.store.queries import (
    IssuesWanted,
    ServerKey,
    ServersWanted,
    gone_servers,
    issues_page,
    named_servers,
    names_meant,
    servers_called,
    servers_page,
)
from patrolserver_exporter.store.views import (
    FleetFilter,
    IssueOrder,
    Order,
    accounts_with,
    fleet_totals,
    fleet_view,
    issues_view,
    poll_states,
    server_view,
)

if TYPE_CHECKING:
    from patrolserver_exporter.store import Store

CVE = "CVE-2026-0001"


@pytest.fixture
def fleet(store: Store) -> Store:
    """Two accounts: web1 is worst, web2 has one issue, db1 none, mail was never polled, and old1 is gone."""
    clock = HeldClock()
    main, other = Driver(store, clock), Driver(store, clock, account="other")
    main.take_list("web1", "web2", "db1", "old1")
    main.poll(unsupported("php"), exploited("nginx", Exploit(cve=CVE, risk=9.0)), server_id=1)
    main.poll(outdated("ssh"), server_id=2)
    main.poll(server_id=3)
    main.poll(outdated("exim"), server_id=4)
    other.take_list("mail")
    clock.advance(3600.0)
    main.take_list("web1", "web2", "db1")
    return store


def names(store: Store, wanted: FleetFilter, *, offset: int = 0, limit: int = 10) -> list[str]:
    """The servers of a page of the fleet."""
    return [row.name for row in store.read(lambda one: fleet_view(one, wanted, offset=offset, limit=limit)).rows]


def test_the_fleet_is_sorted_by_what_is_worst_or_by_name(fleet: Store) -> None:
    """What was never polled may be anything, so it comes before what is fine; and each order has a reverse."""
    assert names(fleet, FleetFilter()) == ["web1", "web2", "mail", "db1"]
    assert names(fleet, FleetFilter(reverse=True)) == ["db1", "mail", "web2", "web1"]
    assert names(fleet, FleetFilter(order=Order.NAME)) == ["db1", "mail", "web1", "web2"]
    assert names(fleet, FleetFilter(order=Order.NAME, reverse=True)) == ["web2", "web1", "mail", "db1"]
    assert names(fleet, FleetFilter(order=Order.MEDIUM))[0] == "web2"
    assert names(fleet, FleetFilter(order=Order.MEDIUM, reverse=True))[-1] == "web2"


@pytest.mark.parametrize(
    ("search", "found"),
    [("WEB", ["web1", "web2"]), ("ss", ["web2"]), ("2", ["web2"]), ("exim", []), ("%", []), ("99999999999999999", [])],
)
def test_the_fleet_is_searched_by_name_software_and_id(fleet: Store, search: str, found: list[str]) -> None:
    """Software of servers that are gone finds nothing, and signs mean themselves."""
    assert names(fleet, FleetFilter(search=search)) == found


def test_what_was_found_for_another_reason_is_in_the_search(fleet: Store) -> None:
    """As servers whose labels fit."""
    wanted = FleetFilter(search="nothing", found=frozenset({ServerKey("main", 3), ServerKey("other", 1)}))
    assert names(fleet, wanted) == ["mail", "db1"]


def test_a_page_past_the_end_is_the_last_one(fleet: Store) -> None:
    """The list may have become shorter; the counts are of all."""
    view = fleet.read(lambda one: fleet_view(one, FleetFilter(), offset=8, limit=3))
    assert ([row.name for row in view.rows], view.offset, view.matching) == (["db1"], 3, 4)
    chosen = FleetFilter(servers=ServersWanted(keys=frozenset({ServerKey("main", 1), ServerKey("main", 9)})))
    assert names(fleet, chosen) == ["web1"]
    in_order = [ServerKey("main", 3), ServerKey("main", 4), ServerKey("main", 1)]
    rows = fleet.read(lambda one: fleet_view(one, FleetFilter(), offset=0, limit=3, keys=in_order)).rows
    assert [row.name for row in rows] == ["db1", "web1"]


def test_totals_leave_out_what_is_gone(fleet: Store) -> None:
    """By severity, and how many servers each is on."""
    totals = fleet.read(fleet_totals)
    assert totals.servers == 4
    assert totals.issues == (1, 1, 1, 0)
    assert totals.affected == (1, 1, 1, 0)


def test_servers_are_listed_by_key(fleet: Store) -> None:
    """By account and id, after the last one of the page before; of those that are wanted."""

    def page(wanted: ServersWanted, after: tuple[str, int] | None = None, limit: int = 10) -> list[tuple[str, int]]:
        found = fleet.read(lambda one: servers_page(one, wanted, after, limit))
        return [(record.account, record.server_id) for record in found]

    assert page(ServersWanted(), limit=2) == [("main", 1), ("main", 2)]
    assert page(ServersWanted(), ("main", 2)) == [("main", 3), ("other", 1)]
    assert page(ServersWanted(accounts=("other",))) == [("other", 1)]
    keys = frozenset({ServerKey("main", 2), ServerKey("main", 4), ServerKey("other", 1)})
    assert page(ServersWanted(keys=keys)) == [("main", 2), ("other", 1)]
    assert page(ServersWanted(keys=keys), ("main", 2)) == [("other", 1)]
    assert page(ServersWanted(issue=IssuesWanted(kinds=("outdated",)))) == [("main", 2)]
    assert page(ServersWanted(issue=IssuesWanted(severities=("medium",), waived=False))) == [("main", 2)]


def test_servers_are_found_by_name_and_id(fleet: Store) -> None:
    """Those that are gone only where they are asked for, with when."""
    called = fleet.read(lambda one: servers_called(one, [1], ["db1", "old1"]))
    assert {server[:2] for server in called} == {("main", 1), ("other", 1), ("main", 3)}
    assert [s.name for s in fleet.read(lambda one: servers_called(one, [1], [], ["other"]))] == ["mail"]
    matching = fleet.read(lambda one: named_servers(one, lambda name: name.endswith("1"), ["main"], ["*1"]))
    assert [server.name for server in matching] == ["web1", "db1"]
    (gone,) = fleet.read(lambda one: gone_servers(one, 4, "", ["main"]))
    assert (gone[0].name, gone[1]) == ("old1", HeldClock().now() + 3600.0)
    assert fleet.read(lambda one: accounts_with(one, 1)) == (("main", "web1"), ("other", "mail"))
    assert fleet.read(lambda one: accounts_with(one, 4)) == (("main", "old1"),)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (IssuesWanted(), {"php", "nginx", "ssh"}),
        (IssuesWanted(accounts=("other",)), set()),
        (IssuesWanted(kinds=("unsupported",)), {"php"}),
        (IssuesWanted(keys=frozenset({ServerKey("main", 2)})), {"ssh"}),
        (IssuesWanted(names=frozenset({"nginx", "exim"})), {"nginx"}),
        (IssuesWanted(exploits=("CVE-2026-*",)), {"nginx"}),
        (IssuesWanted(exploits=("CVE-2026-*",), waived=True), set()),
        (IssuesWanted(exploits=("CVE-2025-*",)), set()),
        (IssuesWanted(fixed=True), set()),
        (IssuesWanted(waived=True), set()),
        (IssuesWanted(keys=frozenset(ServerKey("main", n) for n in range(2, 400))), {"ssh"}),
    ],
)
def test_lists_of_issues_have_what_is_wanted(fleet: Store, wanted: IssuesWanted, found: set[str]) -> None:
    """In the API's list and in the pages' alike, whether the database alone can tell or not."""
    rows, on = fleet.read(lambda one: issues_page(one, wanted, 0, 10))
    assert {row.issue.canonical_name for row in rows} == found
    assert on is None
    view = fleet.read(lambda one: issues_view(one, wanted, order=IssueOrder.WORST, reverse=False, offset=0, limit=10))
    assert {row.issue.canonical_name for row in view.rows} == found
    assert view.matching == len(found)
    assert all(wanted.has(row.issue) for row in rows)


def test_issues_are_listed_page_by_page(fleet: Store) -> None:
    """None is shown twice, and the end is told."""
    seen, after = [], 0
    for _ in range(2):
        rows, on = fleet.read(lambda one, after=after: issues_page(one, IssuesWanted(), after, 2))  # type: ignore[misc]
        seen += [row.issue.canonical_name for row in rows]
        after = on or 0
    assert sorted(seen) == ["nginx", "php", "ssh"]
    assert after == 0
    by_software = [
        [row.issue.canonical_name for row in view.rows]
        for reverse in (False, True)
        for view in [
            fleet.read(
                lambda one, reverse=reverse: issues_view(  # type: ignore[misc]
                    one, IssuesWanted(), order=IssueOrder.SOFTWARE, reverse=reverse, offset=0, limit=10
                )
            )
        ]
    ]
    assert by_software == [["nginx", "php", "ssh"], ["ssh", "php", "nginx"]]
    by_server = fleet.read(
        lambda one: issues_view(one, IssuesWanted(), order=IssueOrder.SERVER, reverse=False, offset=0, limit=10)
    )
    assert [row.server for row in by_server.rows] == ["web1", "web1", "web2"]


def test_globs_mean_software_that_has_issues(fleet: Store) -> None:
    """Open ones, fixed ones or any."""
    assert fleet.read(lambda one: names_meant(one, ["p*", "ss?"])) == {"php", "ssh"}
    assert fleet.read(lambda one: names_meant(one, ["*"], fixed=True)) == frozenset()
    assert "nginx" in fleet.read(lambda one: names_meant(one, ["*"], fixed=None))


def test_one_server_is_shown_with_its_issues(fleet: Store) -> None:
    """Lists are cut, and counts are whole; one that never was is none."""
    view = fleet.read(lambda one: server_view(one, "main", 1, issue_limit=1, history_limit=1))
    assert view is not None
    assert (len(view.open_issues), view.open_count, view.fixed_count) == (1, 2, 0)
    assert view.software is not None
    assert fleet.read(lambda one: server_view(one, "main", 9, issue_limit=1, history_limit=1)) is None


def test_how_fresh_servers_are_is_read_in_parts(fleet: Store) -> None:
    """By account and id, from one key on."""
    first = fleet.read(lambda one: poll_states(one, None, 3))
    assert [(state.account, state.server_id, state.poll_success) for state in first] == [
        ("main", 1, True),
        ("main", 2, True),
        ("main", 3, True),
    ]
    (last,) = fleet.read(lambda one: poll_states(one, ("main", 3), 3))
    assert (last.account, last.last_poll_at) == ("other", None)
