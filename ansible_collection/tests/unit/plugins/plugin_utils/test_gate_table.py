# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of a verdict."""

from __future__ import annotations

from ansible_collections.patrolserver.monitoring.plugins.module_utils import judging
from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.gate_table import table

COUNTS = {"critical": 1, "high": 0, "medium": 2, "low": 0}
ISSUE = {
    "fingerprint": "f",
    "account": "main",
    "server_id": 2,
    "server": "web2",
    "kind": "outdated",
    "severity": "critical",
    "software": "PHP",
    "version": "5.6",
}


def server(number, verdict, counts=None, reasons=()):
    """Return a server of a verdict."""
    name = "web{0}".format(number)
    return {"account": "main", "id": number, "name": name, "verdict": verdict, "counts": counts, "reasons": list(reasons)}


def test_the_worst_servers_are_rows_and_the_rest_is_counted():
    """With what is wrong; numbers that nobody knows are no zeros."""
    doubt = judging.reason("data_too_old", "web3: its last poll is old.")
    result = {
        **judging.nothing_known(),
        "verdict": "fail",
        "policy": "production",
        "servers_by_verdict": {"pass": 40, "fail": 1, "unknown": 1},
        "servers": [server(1, "pass", COUNTS), server(3, "unknown", None, [doubt]), server(2, "fail", COUNTS)],
        "servers_not_listed": 39,
        "violations": [{"limit": "max_total", "allowed": 0, "found": 1, "issues": [ISSUE]}],
    }
    assert table(result, 2) == [
        "gate by policy production: FAIL (40 pass, 1 fail, 1 unknown)",
        "VERDICT  SERVER  CRITICAL  HIGH  MEDIUM  LOW  WHY",
        "fail     web2           1     0       2    0  critical: PHP 5.6 is outdated",
        "unknown  web3           -     -       -    -  its last poll is old.",
        "and 40 more",
    ]


def test_a_gate_that_judged_nobody_tells_why():
    """There are no servers to list."""
    result = judging.nothing_known()
    result["reasons"] = [judging.reason("unreachable", "exporter: no answer")]
    assert table(result, 15) == ["gate: UNKNOWN (0 pass, 0 fail, 0 unknown)", "exporter: no answer"]


def test_a_large_fleet_that_passed_is_one_line():
    """Of what passed the exporter lists nothing, and nobody wants to read how many it left out."""
    result = {**judging.nothing_known(), "verdict": "pass", "passed": True, "servers_not_listed": 3000}
    result["servers_by_verdict"] = {"pass": 3000, "fail": 0, "unknown": 0}
    assert table(result, 15) == ["gate: PASS (3000 pass, 0 fail, 0 unknown)"]
