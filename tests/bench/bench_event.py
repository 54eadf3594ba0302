"""How long from posting a delivery to its issue in /metrics, with an API that takes 50 ms for each call.

Run it as ``python tests/bench/bench_event.py``. There is no peer that does the same; the ratio is to the floor of
whatever confirms an event before it counts: the one call that does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import requests

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.simulated import Simulated, scratch  # The path comes first.
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

LATENCY = 0.05


def _lag(session: requests.Session, exporter: Exporter, simulated: Simulated, number: int) -> float:
    software = {"name": "x", "canonical_name": f"bench/{number}"}
    event = simulated.order(
        "/events",
        identifier="webhook.new_server_issues",
        deliver=False,
        data={
            "server_id": 1 + number % 20,
            "new_issues": [{"title": "x", "software": {"software": software}}],
        },
    )["events"][0]
    wanted = f'patrolserver_issues_opened_total{{account="main",severity="high"}} {float(number + 1)}\n'
    began = time.perf_counter()
    session.post(f"{exporter.url}/webhook/{TOKEN}", json=event, timeout=10).raise_for_status()
    while wanted not in session.get(f"{exporter.url}/metrics?name[]=patrolserver_issues_opened_total", timeout=10).text:
        if time.perf_counter() - began > 30:
            raise RuntimeError("the event did not show")
    return time.perf_counter() - began


def main() -> None:
    """Print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=300)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=scratch()) as folder,
        Simulated(servers=20, software=0) as simulated,
        Exporter.watching(Path(folder), simulated.url, interval="30m", settle="30m") as exporter,
    ):
        eventually(lambda: len(exporter.samples("patrolserver_server_last_poll_timestamp_seconds")) == 20, within=60)
        simulated.order("/webhooks", url=None)
        simulated.order("/faults", kind="latency", seconds=LATENCY)
        session = requests.Session()
        lags = [_lag(session, exporter, simulated, number) for number in range(options.deliveries)]
    cuts = quantiles(lags, n=100)
    print(f"delivery to visible, {options.deliveries} one after the other, API latency {LATENCY * 1e3:.0f} ms")
    print(f"p50 {cuts[49] * 1e3:6.1f} ms   p99 {cuts[98] * 1e3:6.1f} ms   worst {max(lags) * 1e3:6.1f} ms")
    print(f"ratio to the one call that confirms it: {median(lags) / LATENCY:.2f}x")


if __name__ == "__main__":
    try:
        main()
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
