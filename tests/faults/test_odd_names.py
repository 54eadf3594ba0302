"""The promises on what upstream may send: odd names never break a scrape, and a bomb of them stays small."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import pytest
import requests
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.harness.fleet import LAST_POLL, total, wait_for_polls
from tests.harness.process import CONFIG, Exporter
from tests.harness.prometheus import Prometheus
from tests.harness.rawapi import RawApi
from tests.harness.sizes import FULL
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from patrolserver_exporter.simulator.server import Simulator

log = logging.getLogger(__name__)

NAMES = 10_000 if FULL else 2_000
PER_SERVER = 100
INFO = "patrolserver_server_software_info"
MIB = 1024 * 1024
_PIECES = (
    *(
        b"\\n",
        b"\\r\\n",
        b'\\"',
        b"\\\\",
        b"\\t",
        b"\\u0000",
        b"\\u0085",
        b"\\u2028",
        b"{",
        b"}",
        b",",
        b"=",
        b"#",
        b" ",
    ),
    # A surrogate alone, written as an escape and as bytes; half a character; a byte that begins none; one too many.
    *(b"\\ud800", b"\\udfff", b"\xed\xa0\x80", b"\xc3", b"\xff", b"\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"),
    *("é".encode(), "漢字".encode(), "\U0001f600".encode(), "e\u0301".encode(), "\u202e".encode(), "\ufeff".encode()),
    *(b"php", b"wordpress", b"-", b"/", b"1.0", b"# EOF", b"# HELP x y", b"NaN", b"{}", b"<script>", b"%s"),
)


def odd(chance: random.Random) -> bytes:
    """The inside of a JSON text that nobody would send."""
    if chance.random() < 0.02:
        return chance.choice(_PIECES) * (10_240 // 8)
    return b"".join(chance.choices(_PIECES, k=chance.randint(1, 12)))


def odd_fleet() -> dict[str, bytes]:
    """Servers with odd names, and on each a hundred odd outdated software."""
    chance = random.Random(1)
    servers = range(1, NAMES // PER_SERVER + 1)
    listed = b",".join(b'{"id":%d,"name":"%s.example.org","verified":true}' % (n, odd(chance)) for n in servers)
    answers = {"/servers": b'{"data":[%s]}' % listed}
    for number in servers:
        software = b",".join(
            b'{"id":%d,"name":"%s","canonical_name":"%s%d","version":"1%s","supported":"no",'
            b'"newest_bugfix_release":"%s","location":"%s","parent":"%s"}'
            % (n, odd(chance), odd(chance), n, odd(chance), odd(chance), odd(chance), odd(chance))
            for n in range(number * PER_SERVER, (number + 1) * PER_SERVER)
        )
        answers[f"/servers/{number}/software"] = b'{"data":[%s]}' % software
    return answers


@pytest.mark.promise("odd-names")
def test_odd_names_never_break_a_scrape(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Newlines, quotes, surrogates, 10 KB, bytes that are no text: the library's parsers and Prometheus read it."""
    program = require_program("prometheus")
    with (
        RawApi(odd_fleet()) as api,
        Exporter.watching(tmp_path, api.base_url, interval="10m") as exporter,
        Prometheus(tmp_path, program, exporter.url.removeprefix("http://")) as prometheus,
    ):
        wait_for_polls(exporter, NAMES // PER_SERVER)
        text = exporter.metrics()
        families = list(text_string_to_metric_families(text))
        described = [s for family in families if family.name == INFO for s in family.samples]
        assert NAMES * 0.95 < len(described) <= NAMES
        # A server's name is cut only where no host's name could end.
        longest = {label: max(len(sample.labels[label]) for sample in described) for label in described[0].labels}
        assert longest.pop("server") <= 512
        assert max(longest.values()) <= 128
        openly = exporter.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).text
        parsed = list(openmetrics.text_string_to_metric_families(openly))  # type: ignore[no-untyped-call]
        assert len([s for family in parsed for s in family.samples if s.name == INFO]) == len(described)
        eventually(lambda: prometheus.value("up") == 1.0, what="a scrape by Prometheus")
        eventually(lambda: prometheus.value(f"count({INFO})") == len(described), what="all series in Prometheus")
        for page in ("/", "/servers/1", "/api/v1/servers", "/api/v1/issues"):
            assert exporter.get(page).status_code in {200, 404}
        assert "Traceback" not in exporter.log()


def bomb(simulator: Simulator, server: int, count: int) -> None:
    software = {"name": "Bomb", "canonical_name": "bomb", "version": "1", "supported": False}
    requests.post(
        f"{simulator.base_url}/-/simulator/servers/{server}/software",
        json={"software": software, "count": count},
        timeout=60,
    ).raise_for_status()


@pytest.mark.alone
@pytest.mark.promise("cardinality")
def test_a_bomb_of_software_is_capped_and_counted(tmp_path: Path, simulator: Simulator) -> None:
    """10,000 software on a server: so many series as allowed, the rest counted as dropped, and a scrape under 1 s."""
    bomb(simulator, 1, 10_000)
    bomb(simulator, 2, 150)
    bomb(simulator, 3, 150)
    config = CONFIG.format(
        api_url=simulator.base_url, interval="10m", settle="1s", store_url=f"sqlite:///{tmp_path / 'state.db'}"
    )
    limits = "metrics: {software_limit_per_server: 200, software_limit_total: 400}\n"
    with Exporter(tmp_path, config + limits) as exporter:
        wait_for_polls(exporter, 5)
        began = time.monotonic()
        text = exporter.metrics()
        elapsed = time.monotonic() - began
        shown = [line for line in text.splitlines() if line.startswith(INFO + "{")]
        log.info("%d series, scrape in %.3f s, %d MiB", len(shown), elapsed, exporter.rss() // MIB)
        assert len(shown) <= 400
        assert sum('server_id="1"' in line for line in shown) <= 200
        assert elapsed < 1.0
        dropped = "patrolserver_exporter_series_dropped_total"
        assert total(text, dropped, reason="server_limit") >= 9_800.0
        assert total(text, dropped, reason="total_limit") >= 90.0
        # What is counted is not what is shown: no issue is lost by a limit on series.
        assert total(text, "patrolserver_server_issues", server_id="1") >= 10_000.0
        # Where there is room for all of them, each server has as many as it may have.
        exporter.write_config(config + limits.replace("400", "200000"))
        assert requests.post(f"{exporter.url}/-/reload", headers=exporter.operator, timeout=30).status_code == 200
        roomy = exporter.metrics().splitlines()
        assert sum(line.startswith(INFO + "{") and 'server_id="1"' in line for line in roomy) == 200


@pytest.mark.alone
@pytest.mark.promise("upstream")
def test_a_reply_that_is_too_large_fails_honestly(tmp_path: Path) -> None:
    """100,000 software are over the limit on replies: that server's poll fails and says why, the others go on."""
    one = b'{"id":%d,"name":"Bomb %d","canonical_name":"bomb-%d","version":"1","supported":"no","location":"/"}'
    answers = {"/servers": b'{"data":[{"id":1,"name":"one"},{"id":2,"name":"two"}]}'}
    answers |= {
        f"/servers/{server}/software": b'{"data":[%s]}' % b",".join(one % (n, n, n) for n in range(1, 1 + count))
        for server, count in ((1, 100_000), (2, 10))
    }
    with RawApi(answers) as api, Exporter.watching(tmp_path, api.base_url, interval="10m") as exporter:
        failed = "patrolserver_exporter_api_request_failures_total"
        eventually(
            lambda: exporter.value(failed, account="main", endpoint="software", reason="too_large"), what="the refusal"
        )
        wait_for_polls(exporter, 1)
        assert exporter.value("patrolserver_server_poll_success", server_id="1") == 0.0
        assert exporter.value(LAST_POLL, server_id="1") is None
        assert exporter.value("patrolserver_up", account="main") == 1.0
        assert "no reply of this API is that large" in exporter.log()
        began = time.monotonic()
        exporter.metrics()
        assert time.monotonic() - began < 1.0
        assert exporter.rss() < 150 * MIB
