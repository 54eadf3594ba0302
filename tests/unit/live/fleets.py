"""Servers for the tests: hostile ones for Hypothesis, and likely ones for the rest."""

from __future__ import annotations

from hypothesis import strategies as st

from patrolserver_exporter.issues.summary import ExploitInfo, ServerSummary, SoftwareInfo

# All that text may hold once the wire layer has cleaned it, and rather often what the format has to escape.
names = st.text(st.one_of(st.sampled_from('\\"\n,{}=é☃ #\r\u2028\x85'), st.characters(codec="utf-8")), max_size=12)
_counts = st.integers(0, 2_000_000)
_times = st.floats(0, 4e9)
_four_counts = st.tuples(_counts, _counts, _counts, _counts)
_maybe_time = st.none() | _times
_infos = st.builds(
    SoftwareInfo,
    software=names,
    version=names,
    update_to=names,
    state=st.sampled_from(("outdated", "unsupported", "supported")),
    location=names,
    parent=names,
    severity=st.sampled_from(("", "critical", "medium")),
    risk=st.sampled_from(("", "9.8", "unknown")),
)
_exploits = st.builds(ExploitInfo, software=names, exploit=names, risk=st.sampled_from(("5", "9.8", "unknown")))

summaries = st.builds(
    ServerSummary,
    account=st.sampled_from(("default", 'a"b\\c\n')),
    server_id=st.integers(0, 2**53 - 1),
    name=names,
    verified=st.none() | st.booleans(),
    open_issues=st.none() | _four_counts,
    waived_issues=_counts,
    oldest_issue=st.tuples(_maybe_time, _maybe_time, _maybe_time, _maybe_time),
    software=st.none() | _four_counts,
    exploits=st.none() | _counts,
    exploits_unknown_risk=st.integers(0, 3),
    exploit_risk_max=st.none() | st.floats(0, 10),
    scanning=st.booleans(),
    last_scan_at=_maybe_time,
    last_poll_at=_maybe_time,
    poll_success=st.booleans(),
    poll_complete=st.booleans(),
    in_doubt=st.booleans(),
    software_info=st.lists(_infos, max_size=3, unique=True).map(tuple),
    software_info_dropped=st.integers(0, 5),
    exploit_info=st.lists(_exploits, max_size=3, unique=True).map(tuple),
)

fleets = st.lists(summaries, max_size=6, unique_by=lambda summary: (summary.account, summary.server_id))


def server(server_id: int, *, issues: int = 0, software: int = 0, dropped: int = 0) -> ServerSummary:
    """A polled server with some critical issues and some old software."""
    return ServerSummary(
        account="default",
        server_id=server_id,
        name=f"web-{server_id}.example.org",
        verified=True,
        open_issues=(issues, 0, 0, 0),
        oldest_issue=(1_700_000_000.25 if issues else None, None, None, None),
        software=(3, issues, 0, 0),
        exploits=0,
        exploit_risk_max=0.0,
        last_poll_at=1_750_000_000.5,
        poll_success=True,
        poll_complete=True,
        software_info=tuple(
            SoftwareInfo(
                software="php", version=f"7.{minor}", update_to="8.3", state="outdated", location="/usr/bin", parent=""
            )
            for minor in range(software)
        ),
        software_info_dropped=dropped,
    )
