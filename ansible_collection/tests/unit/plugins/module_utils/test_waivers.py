# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of waivers: what covers what, and what needs a decision."""

from __future__ import annotations

import datetime as dt

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils import waivers
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput, Unreadable
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import waivers_of

TODAY = dt.date(2026, 11, 24)
WAIVER = {"server": "web*", "software": "php", "until": "2026-12-01", "reason": "soon"}


def params(stand, **more):
    """Return the options of a task."""
    common = {"servers": ["*"], "account": None, "policy": None, "waivers": None, "waivers_file": None}
    return {**stand.exporter_params, **common, "expiring_within": "14d", **more}


def covered(fingerprint, **more):
    """Return an issue that a waiver covers."""
    waiver = {"until": "2026-12-01", "reason": "soon"}
    issue = {"fingerprint": fingerprint, "account": "main", "server_id": 1, "server": "web1", "canonical_name": "php"}
    common = {"severity": "high", "kind": "outdated", "fixed_at": None, "exploits": []}
    return {**issue, **common, "waived": True, "waiver": waiver, **more}


def test_issues_are_sorted_by_what_covers_them(stand):
    """Also those of which only an exploit is covered; what ends soon comes before what holds."""
    later = {"until": "2027-12-01", "reason": "later"}
    exploit = {"id": "1", "waived": True, "waiver": later}
    stand.control(issues=[covered("a"), covered("b", server="web2"), covered("c", waived=False, waiver=None, exploits=[exploit])])
    report = waivers.report(params(stand), TODAY)
    assert [(row["state"], row["issues"], row["servers"], row["days_left"]) for row in report["waivers"]] == [
        ("expiring", 2, ["web1", "web2"], 7),
        ("active", 1, ["web1"], 372),
    ]
    assert waivers.summary(report) == "Waivers: 1 active, 0 unused, 1 expiring, 0 expired; they cover 3 issues."
    assert waivers.markdown(report).count("\n| ") == 4


def test_waivers_of_the_task_are_asked_for(stand):
    """The exporter says which are over."""
    report = waivers.report(params(stand, waivers=[{**WAIVER, "until": "2020-01-31"}]), TODAY)
    assert [(row["state"], row["servers"]) for row in report["waivers"]] == [("expired", ["web*"])]


def test_waivers_of_the_configuration_that_match_nothing_are_unused(stand):
    """Those that are over are told, too, and one that the task brings as well is told once."""
    told = {**WAIVER, "kind": None, "exploit": None, "max_severity": None, "expired": False, "issues": 0, "servers": 0}
    configured = [
        {**told, "software": "nosuch"},
        {**told, "issues": 3, "servers": 2},
        {**told, "software": "old", "until": "2020-01-31", "expired": True, "issues": 1},
    ]
    stand.control(configured_waivers=configured)
    own = [{**WAIVER, "software": "nosuch"}]
    report = waivers.report(params(stand, waivers=own), TODAY)
    assert [(row["state"], row["software"]) for row in report["waivers"]] == [("expired", ["old"]), ("unused", ["nosuch"])]
    assert report["configuration_known"] is True
    assert "not known" not in waivers.summary(report)


def test_an_older_exporter_does_not_tell_which_are_unused(stand):
    """And the report says that nobody knows."""
    stand.control(configured_waivers=None)
    report = waivers.report(params(stand), TODAY)
    assert report["configuration_known"] is False
    assert "Which of the configuration are unused is not known" in waivers.summary(report)
    stand.control(configured_waivers=[{**WAIVER, "expired": False}])
    with pytest.raises(Unreadable, match="does not tell how many issues it covers"):
        waivers.report(params(stand), TODAY)


def test_servers_that_nobody_knows_are_refused(stand):
    """Nothing is known of their waivers."""
    with pytest.raises(InvalidInput, match="nobody: no such server"):
        waivers.report(params(stand, servers=["nobody"]), TODAY)
    with pytest.raises(InvalidInput, match="servers: the list is empty"):
        waivers.report(params(stand, servers=[]), TODAY)


@pytest.mark.parametrize("field", ["server", "software", "exploit", "until", "reason"])
@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}])
def test_a_member_that_is_no_text_is_refused(field, value):
    """A list as text would be a glob that matches nothing."""
    with pytest.raises(InvalidInput, match="waiver 1: {0} has to be one text".format(field)):
        waivers_of([{**WAIVER, field: value}], None)


def test_a_dot_at_the_end_of_a_server_means_nothing():
    """As everywhere."""
    assert waivers_of([{**WAIVER, "server": "web1.example.org."}], None)[0]["server"] == "web1.example.org"
