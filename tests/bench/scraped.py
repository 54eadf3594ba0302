"""A process that serves one fleet in two ways: kept pieces, and a plain collector of the client library.

``/pieces`` and ``/plain`` are scraped; ``POST /change/<how>`` changes a hundredth of the servers; ``/cpu`` tells the
CPU seconds of this process, ``/memory`` the bytes that a server costs, measured while loading.
"""

from __future__ import annotations

import gc
import gzip
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from tests.unit.live.oracle import CountersOracle, OracleCollector

from patrolserver_exporter.issues.summary import ServerSummary, SoftwareInfo
from patrolserver_exporter.live.account_series import AccountSeries
from patrolserver_exporter.live.encoding import AlwaysRendered, KeptMetric
from patrolserver_exporter.live.fleet import FleetExposition
from patrolserver_exporter.live.own_metrics import ENDPOINTS, Telemetry
from patrolserver_exporter.live.publisher import Scrape
from patrolserver_exporter.patrolserver.errors import FailureReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.registry import Collector

NOW = 1_760_000_000.0
SOFTWARE = (
    ("php", "7.4.33", "8.3.12", "/usr/bin"),
    ("openssl", "1.1.1w", "3.0.15", ""),
    ("nginx", "1.18.0", "1.26.2", ""),
    ("wordpress", "5.9", "6.6.2", "/var/www/html"),
    ("mysql", "5.7.44", "8.0.39", ""),
)


def polled(number: int, chance: random.Random) -> ServerSummary:
    """A server with all its series: 23 and three of software."""
    installed = chance.sample(SOFTWARE, 3)
    return ServerSummary(
        account="main",
        server_id=100_000 + number,
        name=f"web-{number:06}.eu-west-{number % 3}.example.org",
        verified=True,
        open_issues=(chance.randint(0, 1), chance.randint(0, 3), chance.randint(0, 9), chance.randint(0, 4)),
        waived_issues=chance.randint(0, 2),
        oldest_issue=(NOW - chance.random() * 1e7,) * 4,
        software=(chance.randint(9, 60), chance.randint(0, 9), chance.randint(0, 3), chance.randint(0, 2)),
        exploits=chance.randint(0, 5),
        exploit_risk_max=round(chance.random() * 10, 1),
        scanning=chance.random() < 0.02,
        last_scan_at=NOW - chance.random() * 86_400,
        last_poll_at=NOW + chance.random() * 900,
        poll_success=True,
        software_info=tuple(
            SoftwareInfo(
                software=software,
                version=version,
                update_to=update,
                state=chance.choice(("outdated", "unsupported")),
                location=location,
                parent="",
            )
            for software, version, update, location in installed
        ),
    )


class Fleet:
    """The same servers, once kept as pieces and once collected again."""

    def __init__(self, size: int) -> None:
        self.chance = random.Random(size)  # the same fleet at each run
        telemetry = _telemetry()
        pieces = FleetExposition(software_enabled=True, software_limit_total=10 * size)
        accounts = (AccountSeries(account="main", up=True, last_success_at=NOW, servers=size),)
        before = _resident_bytes()
        pieces.show_account(*accounts)
        pieces.replace_all(polled(number, self.chance) for number in range(size))
        self.pieces = pieces
        self.scrape = Scrape(pieces, telemetry)
        for _ in self.scrape.render(None, "gzip").body:
            pass
        self.bytes_per_server = (_resident_bytes() - before) / size
        self.summaries = [polled(number, self.chance) for number in range(size)]
        pieces.replace_all(self.summaries)
        self.plain = CollectorRegistry()
        self.plain.register(OracleCollector(self.summaries, accounts=accounts))
        for collector in _library_metrics():
            self.plain.register(collector)

    def change(self, how: str) -> float:
        """Change a hundredth of the servers; seconds that one update took."""
        size = len(self.summaries)
        count = max(1, size // 100)
        first = self.chance.randrange(size - count + 1)
        numbers: Iterable[int] = (
            range(first, first + count) if how == "in-order" else self.chance.sample(range(size), count)
        )
        changed = [(number, self._changed(number, how)) for number in numbers]
        begin = time.perf_counter()
        for number, summary in changed:
            self.pieces.update(summary)
            self.summaries[number] = summary
        return (time.perf_counter() - begin) / count

    def _changed(self, number: int, how: str) -> ServerSummary:
        if how == "no-news":
            return msgspec.structs.replace(self.summaries[number], last_poll_at=NOW + self.chance.random() * 900)
        return polled(number, self.chance)


_CALLED = ("servers", "software", "is_scanning", "event")


def _telemetry() -> Telemetry:
    telemetry = Telemetry(version="1.0.0", revision="bench")
    telemetry.watch_account("main")
    for endpoint in _CALLED:
        telemetry.api_call("main", endpoint, 0.2, None)
    return telemetry


def _library_metrics() -> Iterator[Collector]:
    """The same as the client library's own metrics."""
    for shown in _telemetry().shown:
        if isinstance(shown, (KeptMetric, AlwaysRendered)):
            yield shown.metric
    counters = CountersOracle()
    counters.watch("main", ENDPOINTS, [reason.value for reason in FailureReason])
    for endpoint in _CALLED:
        counters.call("main", endpoint, 0.2, None)
    yield counters


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Handler(BaseHTTPRequestHandler):
    """Answers for the fleet, which is the class's."""

    fleet: Fleet
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Scrape either way, or ask for a number."""
        match self.path:
            case "/pieces":
                response = self.fleet.scrape.render(self.headers["Accept"], self.headers["Accept-Encoding"])
                self._answer(response.content_length, response.body)
            case "/plain":
                encode, _ = choose_encoder(self.headers["Accept"])
                body = gzip.compress(encode(self.fleet.plain))
                self._answer(len(body), [body])
            case "/cpu":
                self._tell(time.process_time())
            case "/memory":
                self._tell(self.fleet.bytes_per_server)

    def do_POST(self) -> None:
        """Change some servers."""
        self._tell(self.fleet.change(self.path.rpartition("/")[2]))

    def log_message(self, *arguments: object) -> None:
        """Be silent."""

    def _tell(self, value: float) -> None:
        self._answer(len(repr(value)), [repr(value).encode()])

    def _answer(self, length: int, parts: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        for part in parts:
            self.wfile.write(part)


def serve(size: int) -> None:
    """Serve on a free port, which is printed, until killed."""
    Handler.fleet = Fleet(size)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
