"""The fleet dashboard's queries over a week, as they are and as they were.

Run it as ``python tests/bench/bench_dashboard.py``. A Prometheus gets a week of a fleet, a sample of each series that
queries read every 15 minutes, and looks back as far. Then every query of the dashboard is asked once over 7 days, as
Grafana does: the sum of their durations for 10,000 servers, and the processor time that Prometheus used for it, which
other work on the machine hardly changes. Beside it stands the same of the queries from before recording rules and sums,
which are kept in ``fleet_queries_before.json``: they read the series of each server over the whole week.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

sys.path.insert(0, str(Path(__file__).parents[2]))

from grafana.alerting import recorded  # The path comes first.
from grafana.dashboards.files import FOLDER
from grafana.lint import drawn
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

BEFORE = Path(__file__).parent / "fleet_queries_before.json"
STEP, DAY, WEEK = 900, 86_400, 7 * 86_400
RECENT = 4 * 3600
"""Seconds before the end of which what is asked for at the end only has samples: more than Prometheus looks back."""
END = 1_781_514_000
TARGET = 'job="patrolserver",instance="exporter:10058",account="main"'
SEVERITIES = ("critical", "high", "medium", "low")
STATES = ("supported", "outdated", "unsupported", "unknown")
Sample = tuple[str, str, float]


def of_account() -> Iterator[Sample]:
    """Name, labels and value of the account's series."""
    yield from _plain()
    yield from _by_severity()
    for policy in ("builtin", "production"):
        for verdict in ("pass", "fail", "unknown"):
            for name in ("patrolserver_gate_servers", recorded.GATE_SERVERS):
                yield name, f',policy="{policy}",verdict="{verdict}"', 10.0


def _plain() -> Iterator[Sample]:
    for name in (
        *("patrolserver_up", "patrolserver_servers", recorded.SERVERS, recorded.LIST_FRESHEST, recorded.POLLS_FAILED),
        *(recorded.OLDEST_POLL, recorded.HALF_POLL, recorded.OLDEST_SCAN, recorded.HALF_SCAN, recorded.OLDEST_URGENT),
        *(recorded.PARTIAL, recorded.UNKNOWN_RISKS, recorded.SCANS_LATE, recorded.NEVER_SCANNED),
    ):
        yield name, "", 1.0
    yield "patrolserver_last_success_timestamp_seconds", "", float(END)
    for number in range(recorded.SHOWN_SERVERS):
        who = _who(number)
        for name in (recorded.WORST_RISK, recorded.WORST_POLL, recorded.WORST_SCAN):
            yield name, who, 1.0
        for severity in SEVERITIES:
            for name in (recorded.WORST_ISSUES, recorded.WORST_OLDEST):
                yield name, f'{who},severity="{severity}"', 1.0


def _who(number: int) -> str:
    return f',server="web-{number:05}.example.org",server_id="{number}"'


def _by_severity() -> Iterator[Sample]:
    for severity in SEVERITIES:
        label = f',severity="{severity}"'
        for name in (recorded.ACCOUNT_ISSUES, recorded.AFFECTED):
            yield name, label, 100.0
        for name in ("opened_total", "fixed_total", "worsened_total"):
            yield f"patrolserver_issues_{name}", label, 5.0
        for part in ("count", "sum"):
            yield f"patrolserver_issue_fix_duration_seconds_{part}", label, 9.0
        for bound in ("3600.0", "86400.0", "604800.0", "2592000.0", "+Inf"):
            yield "patrolserver_issue_fix_duration_seconds_bucket", f'{label},le="{bound}"', 4.0


def of_server(number: int) -> Iterator[Sample]:
    """The same of a server."""
    who = _who(number)
    for severity in SEVERITIES:
        label = f'{who},severity="{severity}"'
        for name in ("patrolserver_server_issues", recorded.ISSUES):
            yield name, label, float(number % 7)
        for name in ("patrolserver_server_oldest_issue_timestamp_seconds", recorded.OLDEST):
            yield name, label, END - 1000.0 * (number % 900)
    for state in STATES:
        yield "patrolserver_server_software", f'{who},state="{state}"', 3.0
    for metric, series in (
        ("patrolserver_server_last_poll_timestamp_seconds", recorded.POLL),
        ("patrolserver_server_last_scan_timestamp_seconds", recorded.SCAN),
        ("patrolserver_server_info", recorded.INFO),
    ):
        value = 1.0 if metric.endswith("info") else END - number % 900
        yield metric, who, value
        yield series, who, value
    yield recorded.WEIGHT, who, float(number)
    for name in ("exploits", "exploit_risk_max", "exploits_unknown_risk", "poll_success", "poll_complete"):
        yield f"patrolserver_server_{name}", who, float(name.startswith("poll"))


def fill(folder: Path, servers: int, over_week: set[str]) -> None:
    """Write the blocks: the metrics ``over_week`` over the week, the others as far as instant queries look."""
    samples = [*of_account(), *(sample for number in range(servers) for sample in of_server(number))]
    lines = [(name in over_week, f"{name}{{{TARGET}{labels}}} {value} ") for name, labels, value in samples]
    for begin in range(END - WEEK, END + 1, DAY):
        times = range(begin, min(begin + DAY, END + 1), STEP)
        always, lately = ([f"{at}\n" for at in times if at >= since] for since in (0, END - RECENT))
        file = folder / "day.om"
        with file.open("w") as day:
            for whole, line in lines:
                day.writelines(line + at for at in (always if whole else lately))
            day.write("# EOF\n")
        # It reads the file once for each block, of two hours unless it is told otherwise.
        command = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=24h", "openmetrics", "--quiet"]
        command += [str(file), str(folder / "tsdb")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        file.unlink()


def read_over_time(queries: list[dict[str, Any]]) -> set[str]:
    """The metrics of the curves."""
    return {
        name
        for query in queries
        if not query["instant"]
        for name in re.findall(r"[a-z_]+(?::[a-z0-9_]+)*", query["expr"])
    }


@contextmanager
def prometheus(folder: Path) -> Iterator[tuple[str, int]]:
    """One that looks back as far as samples are apart; its URL and the id of its process."""
    config = folder / "prometheus.yml"
    config.write_text("global: {}\n")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += ["--storage.tsdb.retention.time=10y", f"--web.listen-address={url.removeprefix('http://')}"]
    command += [f"--query.lookback-delta={STEP + 60}s", "--query.max-samples=200000000"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: requests.get(f"{url}/-/ready", timeout=5).ok, within=60, what="Prometheus")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


def asked_now() -> list[dict[str, Any]]:
    """The dashboard's queries."""
    page = json.loads((FOLDER / "patrolserver-fleet.json").read_text())
    return [
        {"panel": panel["title"], "expr": target["expr"], "instant": bool(target.get("instant"))}
        for panel in drawn(page)
        for target in panel["targets"]
    ]


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds(url: str, queries: list[dict[str, Any]]) -> dict[str, float]:
    """Panel → how long its queries take."""
    found: dict[str, float] = {}
    for query in queries:
        expr = query["expr"].replace("offset -$__interval", "offset -6h").replace("$__interval", "6h")
        for variable, value in (("$__range", "7d"), ("$__rate_interval", "1h")):
            expr = expr.replace(variable, value)
        for variable in ("job", "instance", "account", "server", "severity"):
            expr = expr.replace(f'"${variable}"', '".+"')
        if query["instant"]:
            path, parameters = "query", {"query": expr, "time": str(END)}
        else:
            times = {"start": str(END - WEEK), "end": str(END), "step": str(WEEK // 600)}
            path, parameters = "query_range", {"query": expr, **times}
        began = time.perf_counter()
        reply = requests.post(f"{url}/api/v1/{path}", data=parameters, timeout=300)
        found[query["panel"]] = found.get(query["panel"], 0.0) + time.perf_counter() - began
        if not reply.ok:
            raise RuntimeError(f"{query['panel']}: {reply.text[:300]}")
    return found


def measured(servers: int) -> None:
    """Print what all queries take together, and the slowest panels."""
    asked = {"now": asked_now(), "before": json.loads(BEFORE.read_text())}
    with tempfile.TemporaryDirectory(prefix="patrolserver-dashboard-") as name:
        folder = Path(name)
        fill(folder, servers, set().union(*map(read_over_time, asked.values())))
        with prometheus(folder) as (url, pid):
            for words, queries in asked.items():
                seconds(url, queries)  # The second time, as when the page refreshes.
                began = cpu(pid)
                found = seconds(url, queries)
                used = cpu(pid) - began
                slowest = sorted(found.items(), key=lambda one: -one[1])[:4]
                print(
                    f"{servers} servers over 7 days, queries {words}: {sum(found.values()):.2f} s in all, "
                    f"{used:.2f} s of them on a processor; "
                    + ", ".join(f"{title} {took:.2f} s" for title, took in slowest)
                )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=10_000)
    measured(parser.parse_args().servers)


if __name__ == "__main__":
    main()
