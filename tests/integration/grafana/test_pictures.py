from __future__ import annotations

import re

from grafana.pictures.week import SERVERS, STEP, WEEK, Week

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
