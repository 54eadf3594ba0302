"""The whole exposition of a small fleet, as a file: what a change does to it is seen in its review."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
from pathlib import Path

from tests.harness.ticking import HeldClock
from tests.unit.sync.accounts import configured

from patrolserver_exporter.config.values import LABELS_IN_USE
from patrolserver_exporter.gate.verdict import Verdict
from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.issues.model import Severity, Waiver
from patrolserver_exporter.issues.summary import ExploitInfo, ServerSummary, SoftwareInfo
from patrolserver_exporter.live.account_series import AccountNow, accounts_now
from patrolserver_exporter.live.effects import AccountShown, PollLost, ServerShown, TalliesShown
from patrolserver_exporter.live.gate_series import Judged, gate_series
from patrolserver_exporter.live.own_metrics import InboxState, Telemetry
from patrolserver_exporter.live.publisher import Publisher
from patrolserver_exporter.live.waiver_series import WaiverCollector
from patrolserver_exporter.store.fleet import AccountRecord, AccountState
from patrolserver_exporter.store.history import Tally

FILE = Path(__file__).with_name("exposition.prom")
NOW = 1_800_000_000.0
SERVERS = (
    ServerSummary(
        account="main",
        server_id=7,
        name="web-01.example.org",
        verified=True,
        open_issues=(1, 0, 1, 0),
        waived_issues=2,
        oldest_issue=(NOW - 86_400.0, None, NOW - 3_600.5, None),
        software=(30, 1, 0, 1),
        exploits=2,
        exploits_unknown_risk=1,
        exploit_risk_max=9.8,
        last_scan_at=NOW - 600,
        last_poll_at=NOW - 60.25,
        poll_success=True,
        poll_complete=True,
        software_info=(
            SoftwareInfo(
                software="openssl",
                version="1.1.1",
                update_to="3.5",
                state="outdated",
                location="/usr/lib",
                parent="",
                severity="critical",
                risk="9.8",
            ),
        ),
        exploit_info=(
            ExploitInfo(software="openssl", exploit="CVE-2026-0001", risk="9.8"),
            ExploitInfo(software="openssl", exploit="V-17", risk="unknown"),
        ),
    ),
    ServerSummary(
        account="main",
        server_id=8,
        name='odd "name"\\',
        open_issues=(0, 0, 0, 0),
        software=(3, 0, 0, 0),
        exploits=0,
        exploit_risk_max=0.0,
        scanning=True,
        last_poll_at=NOW - 60,
        poll_success=True,
        poll_complete=True,
    ),
    ServerSummary(account="main", server_id=9, name="never-polled.example.org", verified=False),
)


def exposition() -> str:
    """All that a scrape shows of it, in the text format."""
    telemetry = Telemetry(version="1.2.3", revision="abc", process_metrics=False)
    telemetry.watch_account("main")
    telemetry.watch_inbox(lambda: [InboxState(state=s.value, deliveries=0) for s in DeliveryState])
    telemetry.watch_store(writable=lambda: False, last_follow_at=lambda: NOW)
    telemetry.api_budget("main", 480.0)
    telemetry.poll_interval("main", 900.0)
    telemetry.config_loaded(NOW - 7200)
    last_delivery_at = NOW - 30
    account = AccountNow(
        owned=True,
        account="main",
        webhook_enabled=True,
        last_delivery_at=last_delivery_at,
        pause_until=NOW + 1800,
        clock_offset=-0.5,
    )
    waiver = Waiver(server="*.lab.example.org", software="php", until=dt.date(2027, 1, 31), reason="replaced")
    judged = Judged(account="main", policy="builtin", servers={Verdict.PASS: 1, Verdict.UNKNOWN: 2})
    telemetry.show(accounts_now(lambda: [account]))
    telemetry.show(gate_series(lambda: [judged]))
    telemetry.show(WaiverCollector(lambda: [waiver]))
    publisher = Publisher(telemetry, HeldClock(NOW), configured().metrics)
    record = AccountRecord(name="main", up=True, last_success_at=NOW - 20, state=AccountState(list_complete=False))
    tally = Tally(
        account="main",
        severity=Severity.CRITICAL,
        opened=3,
        fixed=1,
        worsened=1,
        duration_sum=7_200.0,
        buckets=(0, 1, *(0,) * 9),
    )
    publisher.publish([AccountShown(record, len(SERVERS)), TalliesShown((tally,)), *map(ServerShown, SERVERS)])
    publisher.publish([PollLost("main", 8)])
    text = b"".join(publisher.render(None, None).body).decode()
    return text.replace(platform.python_version(), "PYTHON")


def test_the_exposition_of_a_known_fleet_is_that_of_the_file() -> None:
    """``REGENERATE=1`` writes it."""
    if os.environ.get("REGENERATE"):
        FILE.write_text(exposition(), encoding="utf-8")
    assert exposition() == FILE.read_text(encoding="utf-8")


def test_no_configured_label_can_hide_one_of_the_metrics() -> None:
    """Every label that any series has is refused in ``accounts[].labels``, so that a join keeps its meaning."""
    used = {name for line in exposition().splitlines() for name in re.findall(r'[{,]([A-Za-z_]+)="', line)}
    assert used - {"implementation", "major", "minor", "patchlevel", "generation"} <= LABELS_IN_USE
