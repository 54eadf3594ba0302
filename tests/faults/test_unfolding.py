"""The promise on small replies that unfold: bounded memory, an honest failure, and long lists are no attack."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.harness.fleet import LAST_POLL, wait_for_polls
from tests.harness.process import Exporter, samples
from tests.harness.promises import measured
from tests.harness.rawapi import RawApi
from tests.harness.sizes import FULL, LONGEST
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.promise("unfolding"), pytest.mark.timeout(LONGEST)]

MIB = 2**20
SERVERS = 16
BOMBS = {
    "empty objects": b"[" + b"{}," * 1_390_000 + b"{}]",
    "numbers in the envelope": b'{"data":[' + b"0," * 2_090_000 + b"0]}",
    "one entry": b"[[" + b"{}," * 1_390_000 + b"{}]]",
    "short names": b"[" + b'{"name":"a"},' * 320_000 + b"{}]",
    "deep": b"[" * 4_000_000,
}
FAILED = "patrolserver_exporter_api_request_failures_total"


@contextmanager
def rss_of(exporter: Exporter) -> Iterator[list[int]]:
    """Looks again and again how much memory it holds."""
    seen: list[int] = [exporter.rss()]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            seen.append(exporter.rss())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("name", BOMBS if FULL else ["empty objects", "one entry"])
def test_replies_that_unfold_cost_little_and_are_told(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """Sixteen servers whose software unfolds to 4 MB of next to nothing: each poll fails, and memory stays flat."""
    packed = gzip.compress(BOMBS[name], mtime=0)
    servers = [{"id": n, "name": f"web{n}.example.org"} for n in range(1, SERVERS + 1)]
    answers = {"/servers": json.dumps({"data": []}).encode()}
    answers |= {f"/servers/{one['id']}/software": packed for one in servers}
    with (
        RawApi(answers) as api,
        Exporter.watching(tmp_path, api.base_url, interval="2s") as exporter,
    ):
        eventually(lambda: exporter.value("patrolserver_up", account="main") == 1.0, what="the first list")
        exporter.metrics()
        with rss_of(exporter) as seen:
            before = seen[0]
            answers["/servers"] = json.dumps({"data": servers}).encode()
            eventually(
                lambda: (
                    (exporter.value(FAILED, account="main", endpoint="software", reason="too_large") or 0)
                    + (exporter.value(FAILED, account="main", endpoint="software", reason="unreadable") or 0)
                    >= SERVERS
                ),
                within=120,
                what="the refusals",
            )
        grown = max(seen) - before
        measured(
            request.node,
            load=f"{SERVERS} replies of {len(packed) // 1024} KiB",
            bound=f"RSS +{grown / MIB:.0f} MiB",
        )
        assert grown < 64 * MIB
        assert set(exporter.samples("patrolserver_server_poll_success").values()) == {0.0}
        assert exporter.samples(LAST_POLL) == {}
        assert "is larger" in exporter.log() or "more than" in exporter.log() or "nested" in exporter.log()


def test_a_list_above_the_limit_of_other_replies_is_whole(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A long list is no attack: all its servers are there, and the account is up."""
    count = 100_000 if FULL else 20_000
    entry = b'{"id":%d,"name":"web%06d.example.org","verified":true,"organisation":"%s"}'
    padding = b"x" * (250 if not FULL else 40)
    body = b'{"data":[%s],"total":%d}' % (b",".join(entry % (n, n, padding) for n in range(1, count + 1)), count)
    assert len(body) > 4 * MIB
    with RawApi({"/servers": body}) as api, Exporter.watching(tmp_path, api.base_url, interval="10m") as exporter:

        def shown(name: str) -> float | None:
            # The whole exposition of such a fleet takes the test a minute to read.
            text = exporter.get(f"/metrics?name[]={name}").text
            return samples(text, name).get((("account", "main"),))

        eventually(lambda: shown("patrolserver_servers") == count, within=120, what="the list")
        assert shown("patrolserver_up") == 1.0
        assert shown("patrolserver_list_complete") == 1.0
        measured(request.node, bound=f"{len(body) / MIB:.0f} MiB of list, RSS {exporter.rss() / MIB:.0f} MiB")


def test_the_others_go_on(tmp_path: Path) -> None:
    """One server whose reply unfolds holds up nobody."""
    sound = json.dumps({"data": [{"name": "PHP", "version": "8.1", "supported": True, "exploits": []}]}).encode()
    answers = {
        "/servers": json.dumps({"data": [{"id": 1, "name": "bomb"}, {"id": 2, "name": "sound"}]}).encode(),
        "/servers/1/software": gzip.compress(BOMBS["empty objects"], mtime=0),
        "/servers/2/software": sound,
    }
    with RawApi(answers) as api, Exporter.watching(tmp_path, api.base_url) as exporter:
        wait_for_polls(exporter, 1)
        assert exporter.value("patrolserver_server_poll_success", server_id="2") == 1.0
        assert exporter.value(LAST_POLL, server_id="1") is None
