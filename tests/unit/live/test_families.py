from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from tests.unit.live import fleets
from tests.unit.live.oracle import OracleCollector

from patrolserver_exporter.live.families import EXPLOIT_INFO, SERVER_FAMILIES, SOFTWARE_INFO, render

if TYPE_CHECKING:
    from patrolserver_exporter.issues.summary import ServerSummary

FAMILIES = (*SERVER_FAMILIES, SOFTWARE_INFO, EXPLOIT_INFO)


def rendered(summary: ServerSummary) -> dict[str, str]:
    lines = render(FAMILIES, summary)
    return {family.name: text.decode() for family, text in zip(FAMILIES, lines, strict=True)}


@given(fleets.summaries)
def test_lines_are_the_client_librarys(summary: ServerSummary) -> None:
    """A server's headers and lines are to the byte what the client library writes for the same summary."""
    ours = b"".join(family.header + lines for family, lines in zip(FAMILIES, render(FAMILIES, summary), strict=True))
    library = generate_latest(OracleCollector([summary]))
    assert ours == library[library.index(b"# HELP patrolserver_server_info") :]


def test_unknown_issues_are_absent() -> None:
    """While nobody told of issues there are no counts of them that could look like a clean server."""
    text = rendered(msgspec.structs.replace(fleets.server(1), open_issues=None))
    assert text["patrolserver_server_issues"] == ""
    assert text["patrolserver_server_issues_waived"] == ""


def test_unpolled_software_is_absent() -> None:
    """Until the first successful poll there are no counts of software and exploits."""
    text = rendered(msgspec.structs.replace(fleets.server(1), software=None))
    assert text["patrolserver_server_software"] == ""
    assert text["patrolserver_server_exploits"] == ""
    assert text["patrolserver_server_exploit_risk_max"] == ""


def test_severities_are_zero_filled() -> None:
    """A clean server shows a zero for each severity."""
    lines = rendered(fleets.server(1))["patrolserver_server_issues"].splitlines()
    assert lines == [
        'patrolserver_server_issues{account="default",server="web-1.example.org",server_id="1"'
        f',severity="{severity}"}} 0.0'
        for severity in ("critical", "high", "medium", "low")
    ]


def test_oldest_issue_only_where_one_is_open() -> None:
    """The time of the oldest issue exists only for severities with an open issue."""
    assert rendered(fleets.server(1))["patrolserver_server_oldest_issue_timestamp_seconds"] == ""
    assert rendered(fleets.server(1, issues=2))["patrolserver_server_oldest_issue_timestamp_seconds"] == (
        'patrolserver_server_oldest_issue_timestamp_seconds{account="default",server="web-1.example.org"'
        ',server_id="1",severity="critical"} 1.70000000025e+09\n'
    )


@pytest.mark.parametrize(("verified", "label"), [(True, "true"), (False, "false"), (None, "unknown")])
def test_verified_is_a_label(verified: bool | None, label: str) -> None:  # noqa: FBT001  # a parameter of the table
    """Whether the server is verified is told by name, not knowing included."""
    text = rendered(msgspec.structs.replace(fleets.server(1), verified=verified))
    assert f'verified="{label}"}} 1.0' in text["patrolserver_server_info"]


@given(st.text(st.characters(codec=None), max_size=10))
def test_lone_surrogates_are_replaced(name: str) -> None:
    """Text that UTF-8 cannot carry costs no scrape."""
    lines = render(FAMILIES, msgspec.structs.replace(fleets.server(1), name=name + "\ud800"))
    assert b'?",server_id="1"' in lines[0]
    lines[0].decode()


def test_the_labels_of_the_configuration_stand_on_the_info_series_alone() -> None:
    """They come in the order of the alphabet among the others, as the client library writes them, and escaped."""
    summary = fleets.server(1)
    configured = {"Z": "a", "_x": 'say "hi"', "team": "web", "zone": "b\\c"}
    lines = dict(zip((one.name for one in FAMILIES), render(FAMILIES, summary, configured), strict=True))
    plain = dict(zip((one.name for one in FAMILIES), render(FAMILIES, summary), strict=True))
    named = {"account": "default", "server_id": "1", "server": "web-1.example.org", "verified": "true", **configured}
    family = GaugeMetricFamily("patrolserver_server_info", "A watched server; always 1.", labels=list(named))
    family.add_metric(list(named.values()), 1.0)
    registry = CollectorRegistry()
    registry.register(Fixed(family))
    assert lines["patrolserver_server_info"] == generate_latest(registry).splitlines(keepends=True)[2]
    assert {name for name in lines if lines[name] != plain[name]} == {"patrolserver_server_info"}


class Fixed:
    """A collector of one family."""

    def __init__(self, family: GaugeMetricFamily) -> None:
        self._family = family

    def collect(self) -> list[GaugeMetricFamily]:
        """Give it."""
        return [self._family]
