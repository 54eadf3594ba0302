from __future__ import annotations

import tracemalloc
from collections import Counter
from threading import Thread
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from prometheus_client.exposition import generate_latest
from tests.harness.ticking import HeldClock
from tests.unit.live import fleets
from tests.unit.live.oracle import OracleCollector

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.live.account_series import AccountSeries
from patrolserver_exporter.live.encoding import negotiate, plain
from patrolserver_exporter.live.fleet import BLOCK_ROWS, FleetExposition
from patrolserver_exporter.store.history import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patrolserver_exporter.issues.summary import ServerSummary
    from patrolserver_exporter.live.own_metrics import DropReason

TEXT = negotiate(None)
OPENMETRICS = negotiate("application/openmetrics-text; version=1.0.0")


def fleet(limit: int = 1_000_000) -> FleetExposition:
    return FleetExposition(software_enabled=True, software_limit_total=limit, clock=HeldClock())


def lines(exposition: FleetExposition, names: frozenset[str] | None = None) -> list[str]:
    """All lines of the text format, sorted: the order of servers is nobody's business."""
    return sorted(b"".join(plain(exposition.pieces(TEXT, names))).decode().split("\n"))


def expected(summaries: Iterable[ServerSummary]) -> list[str]:
    return sorted(generate_latest(OracleCollector(summaries)).decode().split("\n"))


class FleetMachine(RuleBasedStateMachine):
    """Servers come, change and go in any order; the exposition is always that of the plain collector."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = fleet()
        self.model: dict[tuple[str, int], ServerSummary] = {}

    @rule(summary=fleets.summaries)
    def add(self, summary: ServerSummary) -> None:
        """A server is polled."""
        self.model[summary.account, summary.server_id] = summary
        self.fleet.update(summary)

    @rule(data=st.data(), summary=fleets.summaries)
    def change(self, data: st.DataObject, summary: ServerSummary) -> None:
        """A known server changes in everything but its identity."""
        if self.model:
            account, server_id = data.draw(st.sampled_from(sorted(self.model)))
            self.add(msgspec.structs.replace(summary, account=account, server_id=server_id))

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A poll without any news changes nothing."""
        if self.model:
            self.fleet.update(self.model[data.draw(st.sampled_from(sorted(self.model)))])

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """A server leaves its account."""
        if self.model:
            key = data.draw(st.sampled_from(sorted(self.model)))
            del self.model[key]
            self.fleet.remove(*key)

    @rule(server_id=st.integers(0, 5))
    def remove_unknown(self, server_id: int) -> None:
        """What is not there can be removed."""
        self.fleet.remove("nobody", server_id)

    @rule(summaries=fleets.fleets)
    def replace(self, summaries: list[ServerSummary]) -> None:
        """The fleet is read again from the store."""
        self.model = {(summary.account, summary.server_id): summary for summary in summaries}
        self.fleet.replace_all(iter(summaries))

    @rule()
    def scrape(self) -> None:
        """All lines are those of the plain collector."""
        assert lines(self.fleet) == expected(self.model.values())

    def teardown(self) -> None:
        """Whatever happened, the last scrape is right."""
        self.scrape()


# Each example is slow; fewer still with a profile that asks for few.
FleetMachine.TestCase.settings = settings(
    max_examples=settings().max_examples * 2 // 5, stateful_step_count=25, deadline=None
)
TestFleet = FleetMachine.TestCase


def test_many_blocks() -> None:
    """A fleet of several blocks, changed here and there, is complete, and holes are filled by newcomers."""
    exposition = fleet()
    servers = {server_id: fleets.server(server_id) for server_id in range(3 * BLOCK_ROWS + 5)}
    exposition.replace_all(servers.values())
    assert lines(exposition) == expected(servers.values())
    for server_id in range(0, len(servers), 7):
        servers[server_id] = fleets.server(server_id, issues=server_id % 4 + 1, software=1)
        exposition.update(servers[server_id])
    pieces = len(exposition.pieces(TEXT))
    for server_id in range(10, 400):
        del servers[server_id]
        exposition.remove("default", server_id)
    for server_id in range(10_000, 10_390):
        servers[server_id] = fleets.server(server_id, software=2)
        exposition.update(servers[server_id])
    assert lines(exposition) == expected(servers.values())
    assert len(exposition.pieces(TEXT)) == pieces


def test_a_server_that_is_restored_twice_is_there_once() -> None:
    """The last one counts, and those behind it are complete."""
    exposition = fleet()
    servers = [fleets.server(server_id) for server_id in range(BLOCK_ROWS + 10)]
    twice = fleets.server(3, issues=2)
    exposition.replace_all([*servers[:5], twice, *servers[5:]])
    servers[3] = twice
    assert lines(exposition) == expected(servers)


def test_only_changed_families_are_made_anew() -> None:
    """A poll without news costs one family of one block; all other bytes are those of the scrape before."""
    exposition = fleet()
    exposition.replace_all([fleets.server(server_id) for server_id in range(2 * BLOCK_ROWS)])
    before = exposition.pieces(TEXT)
    exposition.update(msgspec.structs.replace(fleets.server(3), last_poll_at=1_750_000_900.0))
    after = exposition.pieces(TEXT)
    assert sum(new is not old for new, old in zip(after, before, strict=True)) == 1


@pytest.mark.slow
def test_changes_do_not_pile_up_without_scrapes() -> None:
    """While nobody scrapes, changed lines are folded in now and then instead of being kept."""
    exposition = fleet()
    servers = [fleets.server(server_id, software=8) for server_id in range(5_000)]
    tracemalloc.start()
    try:
        exposition.replace_all(servers)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    text = sum(piece.length for piece in exposition.pieces(TEXT))
    assert held < text / 2


def test_headers_without_servers() -> None:
    """Families are announced before there is anything to show, as the client library does for registered metrics."""
    assert lines(fleet()) == expected([])


def test_names_restrict() -> None:
    """Asked for names, only samples so named come, and families without any stay away with their headers."""
    exposition = fleet()
    exposition.show_account(AccountSeries(account="default", up=True))
    assert lines(exposition, frozenset({"patrolserver_server_info"})) == [""]
    exposition.update(fleets.server(1))
    names = frozenset({"patrolserver_server_info", "patrolserver_up", "patrolserver_issues_fixed", "other"})
    assert [line.partition("{")[0] for line in lines(exposition, names) if not line.startswith("#")] == [
        "",
        "patrolserver_server_info",
        "patrolserver_up",
    ]


def test_software_can_be_switched_off() -> None:
    """Without the software metric there is neither a series nor a header of it."""
    exposition = FleetExposition(software_enabled=False, software_limit_total=100)
    exposition.update(fleets.server(1, software=3))
    assert not [line for line in lines(exposition) if "software_info" in line]


def test_software_limit_over_the_fleet() -> None:
    """A server that would exceed the limit shows none of its software, and comes in when there is room."""
    dropped: Counter[DropReason] = Counter()
    exposition = FleetExposition(
        software_enabled=True, software_limit_total=5, on_dropped=lambda reason, count: dropped.update({reason: count})
    )
    family = frozenset({"patrolserver_server_software_info"})

    def shown() -> Counter[str]:
        return Counter(line.split('server_id="')[1].split('"')[0] for line in lines(exposition, family) if "{" in line)

    exposition.replace_all([fleets.server(1, software=3), fleets.server(2, software=3), fleets.server(3, software=2)])
    assert shown() == {"1": 3, "3": 2}
    assert dropped == {"total_limit": 3}
    exposition.remove("default", 1)
    exposition.update(fleets.server(2, software=3))
    assert shown() == {"2": 3, "3": 2}
    assert dropped == {"total_limit": 3}


def test_a_server_that_is_shown_again_takes_only_its_own_room() -> None:
    """Who came first stays, however often it is polled; who grows too large or goes leaves its room, once."""
    exposition = fleet(limit=5)

    def shown() -> list[str]:
        text = lines(exposition, frozenset({"patrolserver_server_software_info"}))
        return sorted({line.split('server_id="')[1].split('"')[0] for line in text if "{" in line})

    for server_id, software, expected in (
        (1, 3, ["1"]),
        (2, 2, ["1", "2"]),
        (3, 1, ["1", "2"]),
        (1, 3, ["1", "2"]),
        (1, 4, ["2"]),
        (3, 1, ["2", "3"]),
        (1, 2, ["1", "2", "3"]),
    ):
        exposition.update(fleets.server(server_id, software=software))
        assert shown() == expected
    exposition.remove("default", 1)
    exposition.update(fleets.server(4, software=3))
    assert shown() == ["2", "3"]
    exposition.update(fleets.server(4, software=2))
    assert shown() == ["2", "3", "4"]


def test_what_limits_cut_off_is_counted_for_as_long_as_they_do() -> None:
    """Each poll counts what is cut off: a counter that stood still would look like a table that is complete."""
    dropped: Counter[DropReason] = Counter()
    exposition = FleetExposition(
        software_enabled=True, software_limit_total=5, on_dropped=lambda reason, count: dropped.update({reason: count})
    )
    for _ in range(2):
        exposition.update(fleets.server(1, dropped=4))
        exposition.update(fleets.server(2, software=6))
    assert dropped == {"server_limit": 8, "total_limit": 12}
    exposition.update(fleets.server(1))
    assert dropped == {"server_limit": 8, "total_limit": 12}


def test_accounts_render_in_either_format() -> None:
    """The accounts' series are the client library's in both formats, and follow each change."""
    exposition = fleet()
    accounts = [
        AccountSeries(account="default", up=True, last_success_at=1.75e9, servers=2),
        AccountSeries(account="b"),
    ]
    for series in accounts:
        exposition.show_account(series)
    for fixed in (1, 2):
        tallies = [Tally(account="default", severity=Severity.HIGH, opened=3, fixed=fixed)]
        exposition.show_tallies(tallies)
        for chosen in (TEXT, OPENMETRICS):
            oracle = OracleCollector([], accounts=accounts, tallies=tallies)
            text = b"".join(plain(exposition.pieces(chosen)))
            assert text == chosen.encode(oracle).removesuffix(b"# EOF\n")


def test_scrapes_beside_updates() -> None:
    """Scrapes from other threads see whole servers while updates go on."""
    exposition = fleet()
    exposition.replace_all([fleets.server(server_id, issues=1) for server_id in range(300)])
    torn: list[int] = []

    def scrape() -> None:
        for _ in range(30):
            text = b"".join(plain(exposition.pieces(TEXT)))
            if text.count(b"patrolserver_server_poll_success{") != 300:
                torn.append(1)

    threads = [Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(600):
        exposition.update(fleets.server(number % 300, issues=number % 9))
    for thread in threads:
        thread.join(60)
    assert not torn
