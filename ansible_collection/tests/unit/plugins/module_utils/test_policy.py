# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies, waivers and baselines: nothing that is unclear means more lenient."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils import baseline
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import policy, waivers_of

GOOD = {"server": "*", "software": "php", "until": "2027-01-31", "reason": "soon"}


def test_what_is_unset_is_left_to_the_exporter():
    """Only what was asked for is sent, and zero is something."""
    params = {"max_by_severity": {"critical": None, "high": 0}, "max_by_kind": {"outdated": None}, "max_total": None}
    assert policy({**params, "max_age": "1h"}, None, []) == {"max_by_severity": {"high": 0}, "max_age": 3600.0}


def test_an_empty_baseline_is_sent():
    """It is not the same as none."""
    assert policy({}, [], []) == {"baseline": []}


@pytest.mark.parametrize("params", [{"max_total": -1}, {"max_by_severity": {"low": -1}}, {"max_risk": -0.1}])
def test_negative_limits_are_refused(params):
    """They would mean something to somebody."""
    with pytest.raises(InvalidInput, match="negative"):
        policy(params, None, [])


def test_waivers_come_from_the_task_and_from_its_file():
    """YAML dates stay the text that was written."""
    text = "waivers:\n- {server: a, software: b, kind: outdated, until: 2027-02-28, reason: 0123}\n"
    assert waivers_of([GOOD], text, "w.yml") == [
        GOOD,
        {"server": "a", "software": "b", "kind": "outdated", "until": "2027-02-28", "reason": "0123"},
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"until": None},
        {"until": ""},
        {"until": "2027-02-29"},
        {"until": "2027-2-1"},
        {"until": "tomorrow"},
        {"until": "2027-01-31T00:00:00Z"},
        {"reason": "  "},
        {"server": None},
        {"software": ""},
        {"kind": "any"},
        {"expires": "2027-01-31"},
    ],
)
def test_a_waiver_that_is_not_whole_is_refused(change):
    """A missing date is not for ever, and a misspelt key is not ignored."""
    with pytest.raises(InvalidInput):
        waivers_of([{**GOOD, **change}], None)


@pytest.mark.parametrize("text", ["", "{", "a: b", "[1]", "waivers: {}", "waivers: []\nmore: 1", "- - a", "!!python/none x"])
def test_a_broken_file_is_refused(text):
    """It is not an empty one."""
    with pytest.raises(InvalidInput, match=r"w\.yml"):
        waivers_of(None, text, "w.yml")


def test_a_baseline_survives_the_way_there_and_back():
    """Sorted, each once, and equal issues make equal files."""
    issues = [{"fingerprint": "b", "server": "x", "extra": 1}, {"fingerprint": "a"}, {"fingerprint": "a"}]
    text = baseline.document(issues)
    assert text == baseline.document(list(reversed(issues)))
    assert baseline.fingerprints(text, "b.json") == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "issues": []}', '{"version": 1}', '{"version": 1, "issues": [{}]}', "null"]
)
def test_a_broken_baseline_is_refused(text):
    """It is not an empty one, with which everything would be new, nor one that hides everything."""
    with pytest.raises(InvalidInput):
        baseline.fingerprints(text, "b.json")
