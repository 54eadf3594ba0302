# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet, added up."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.modules import fleet_info

COUNTS = {"critical": 1, "high": 0, "medium": 2, "low": 0, "total": 3, "waived": 0}
POLLED = {"name": "web1", "issues": COUNTS, "data_age_seconds": 60.0, "last_poll_at": "2026-11-24T07:00:00Z"}
UNPOLLED = {"name": "web2", "issues": None, "data_age_seconds": None, "last_poll_at": None}


@pytest.mark.parametrize(
    ("servers", "critical"), [([], 0), ([POLLED], 1), ([POLLED, POLLED], 2), ([POLLED, UNPOLLED], 1), ([UNPOLLED], None)]
)
def test_totals_are_of_what_is_known(servers, critical):
    """No servers have no issues; of servers that nobody polled nobody knows."""
    assert fleet_info.summary(servers, 3600)["totals"]["critical"] == critical


def test_a_server_without_counts_is_listed():
    """So that it does not look clean beside others."""
    found = fleet_info.summary([POLLED, UNPOLLED], 3600)
    assert (found["stale"], found["unpolled"], found["oldest_data_age_seconds"]) == (["web2"], ["web2"], None)
