from __future__ import annotations

import logging
import subprocess
import zlib
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.harness.ticking import HeldClock
from tests.unit.live import fleets
from tests.unit.live.oracle import OracleCollector

from patrolserver_exporter.issues.model import Severity
from patrolserver_exporter.live.account_series import AccountSeries
from patrolserver_exporter.live.fleet import FleetExposition
from patrolserver_exporter.live.own_metrics import InboxState, Telemetry
from patrolserver_exporter.live.publisher import Scrape, ScrapeResponse
from patrolserver_exporter.store.history import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

    from patrolserver_exporter.issues.summary import ServerSummary

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ACCOUNTS = (AccountSeries(account="default", up=True, last_success_at=1.75e9, servers=2), AccountSeries(account="b"))
TALLIES = (Tally(account="default", severity=Severity.HIGH, opened=3, fixed=1, duration_sum=0.1),)


def scrape_of(summaries: Iterable[ServerSummary], telemetry: Telemetry | None = None) -> Scrape:
    telemetry = telemetry or Telemetry(version="1", revision="x", process_metrics=False)
    fleet = FleetExposition(
        software_enabled=True, software_limit_total=10_000, clock=HeldClock(0.0), on_dropped=telemetry.series_dropped
    )
    for series in ACCOUNTS:
        fleet.show_account(series)
    fleet.show_tallies(TALLIES)
    fleet.replace_all(summaries)
    return Scrape(fleet, telemetry)


def body(response: ScrapeResponse) -> bytes:
    """The whole body as it is sent, of the length that was promised."""
    sent = b"".join(response.body)
    assert len(sent) == response.content_length
    return sent


def fleet_samples(families: Iterable[Metric]) -> list[tuple[object, ...]]:
    """What a parser understood of the series that are not the exporter's own."""
    return sorted(
        (metric.name, metric.documentation, metric.type, sample.name, sorted(sample.labels.items()), sample.value)
        for metric in families
        if not metric.name.startswith("patrolserver_exporter_")
        for sample in metric.samples
    )


@pytest.mark.slow
@settings(max_examples=40)
@given(fleets.fleets)
def test_parses_as_the_plain_collector_in_text(summaries: list[ServerSummary]) -> None:
    """The client library's parser understands the same as of the library's own exposition."""
    text = body(scrape_of(summaries).render("text/plain", None)).decode()
    oracle = OracleCollector(summaries, accounts=ACCOUNTS, tallies=TALLIES)
    assert fleet_samples(parse_text(text)) == fleet_samples(parse_text(generate_latest(oracle).decode()))


@pytest.mark.slow
@settings(max_examples=40)
@given(fleets.fleets)
def test_parses_as_the_plain_collector_in_openmetrics(summaries: list[ServerSummary]) -> None:
    """The strict OpenMetrics parser takes the whole exposition and understands the same."""
    text = body(scrape_of(summaries).render(OPENMETRICS, None)).decode()
    registry = CollectorRegistry()
    registry.register(OracleCollector(summaries, accounts=ACCOUNTS, tallies=TALLIES))
    assert text.endswith("\n# EOF\n")
    parsed = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    assert fleet_samples(parsed) == fleet_samples(registry.collect())


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_gzip_is_the_same_text_in_one_member(accept: str | None) -> None:
    """A client with gzip reads what one without reads, and all of it is in the first member."""
    scrape = scrape_of([fleets.server(number, software=2) for number in range(600)])
    zipped = scrape.render(accept, "gzip, deflate")
    assert zipped.content_encoding == "gzip"
    reader = zlib.decompressobj(31)
    text = reader.decompress(body(zipped))
    assert reader.eof
    assert reader.unused_data == b""
    plain = scrape.render(accept, "gzip;q=0")
    assert plain.content_encoding is None
    assert text == body(plain)


def test_names_reach_fleet_and_own_metrics() -> None:
    """Asked for names, fleet and own metrics give just those samples, and the rest stays away."""
    scrape = scrape_of([fleets.server(1)])
    names = ["patrolserver_server_info", "patrolserver_exporter_build_info", "patrolserver_up"]
    text = body(scrape.render(None, None, names)).decode()
    assert {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")} == set(names)
    assert text.count("# TYPE ") == 3


def test_raising_collector_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    """An own metric that cannot be collected is logged and counted, and everything else is there."""
    telemetry = Telemetry(version="1", revision="x", process_metrics=False)
    broken = True

    def snapshot() -> list[InboxState]:
        if broken:
            raise OSError("disk on fire")
        return [InboxState(state="dead", deliveries=4)]

    telemetry.watch_inbox(snapshot)
    scrape = scrape_of([fleets.server(1)], telemetry)
    with caplog.at_level(logging.ERROR):
        text = body(scrape.render(OPENMETRICS, None)).decode()
    assert "patrolserver_server_info{" in text
    assert "patrolserver_exporter_build_info{" in text
    assert "inbox_deliveries" not in text
    assert text.endswith("# EOF\n")
    assert "disk on fire" in caplog.text
    broken = False
    text = body(scrape.render(None, None)).decode()
    assert 'patrolserver_exporter_errors_total{component="exposition"} 1.0' in text
    assert 'patrolserver_exporter_inbox_deliveries{state="dead"} 4.0' in text


def test_promtool_finds_nothing(require_program: Callable[[str], str]) -> None:
    """Prometheus's own linter reads the exposition and has nothing to say."""
    promtool = require_program("promtool")
    telemetry = Telemetry(version="1", revision="x", process_metrics=False)
    telemetry.watch_account("default")
    telemetry.watch_inbox(lambda: [InboxState(state="dead", deliveries=1, oldest_at=1.0)])
    telemetry.api_call("default", "software", 0.5, "timeout")
    hostile = msgspec.structs.replace(fleets.server(2, issues=3, software=3, dropped=1), name='a"b\\c\nd\u2028é{}')
    scanned = msgspec.structs.replace(fleets.server(3), last_scan_at=1.75e9, scanning=True)
    text = body(scrape_of([fleets.server(1), hostile, scanned], telemetry).render(None, None))
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
