from __future__ import annotations

import re
from typing import TYPE_CHECKING

import requests
from grafana.alerting.recorded import ISSUES, WEIGHT, WORST, WORST_ISSUES
from grafana.pictures.__main__ import prometheus
from grafana.pictures.backfill import backfill
from grafana.pictures.recording import record
from grafana.pictures.week import SERVERS, STEP, WEEK, Week

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

END = 1_781_514_000


def test_the_week_has_what_the_pictures_are_to_show() -> None:
    """All its steps, a restart, a failing API, critical issues that come and are fixed, and a server that joins."""
    played = list(Week(END).play())
    assert [at for at, _ in played] == list(range(END - WEEK, END + 1, STEP))
    played = played[::6]  # Every half hour is enough to see the rest.
    assert len(values(played, r"^process_start_time_seconds (\S+)$")) == 2
    assert values(played, r"^patrolserver_up{.*} (\S+)$") == {"0.0", "1.0"}
    assert values(played, r"^patrolserver_servers{.*} (\S+)$") == {f"{SERVERS - 1}.0", f"{SERVERS}.0"}
    followed = values(played, r"^patrolserver_exporter_last_follow_timestamp_seconds (\S+)$")
    assert {float(at) for at in followed} == {float(at) for at, _ in played}
    critical = [
        sum(map(float, re.findall(r'^patrolserver_server_issues{.*severity="critical"} (\S+)$', text, re.MULTILINE)))
        for _, text in played
    ]
    assert critical[0] == 0
    assert max(critical) > critical[-1] > 0


def values(played: list[tuple[int, str]], pattern: str) -> set[str]:
    """All values that a series has in the week."""
    return {found for _, text in played for found in re.findall(pattern, text, re.MULTILINE)}


def test_what_is_recorded_is_of_one_moment(tmp_path: Path, require_program: Callable[[str], str]) -> None:
    """Recorded series are as old as those that they are made of, and these are fresh: so are the worst servers."""
    require_program("promtool")
    require_program("prometheus")
    who = 'account="main",server="web-01",server_id="7"'
    start = END - 6 * STEP
    backfill(((at, scrape(who, at, (at - start) // STEP + 1)) for at in range(start, END + 1, STEP)), tmp_path / "tsdb")
    record(tmp_path, start, END, STEP, prometheus)
    with prometheus(tmp_path) as url:
        recorded = [samples(url, name) for name in (ISSUES, WEIGHT, WORST, WORST_ISSUES)]
    issues, weights, worst, shown = recorded
    assert len(issues) >= 5
    assert issues == shown
    assert all(at % STEP < 60 for at in issues)
    assert {at: value * 1e6 for at, value in issues.items()} == weights == worst


def scrape(who: str, at: int, high: int) -> str:
    """What an exporter shows of one server, whose issues become more and more."""
    return (
        f'patrolserver_last_success_timestamp_seconds{{account="main"}} {at}\n'
        f"patrolserver_server_info{{{who}}} 1\n"
        f"patrolserver_server_last_poll_timestamp_seconds{{{who}}} {at}\n"
        f'patrolserver_server_issues{{{who},severity="high"}} {high}\n'
    )


def samples(url: str, series: str) -> dict[float, float]:
    """Time → value."""
    asked = {"query": f"{series}[{WEEK}s]", "time": str(END)}
    (found,) = requests.get(f"{url}/api/v1/query", params=asked, timeout=30).json()["data"]["result"]
    return {at: float(value) for at, value in found["values"]}
