# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies, waivers and baselines: nothing that is unclear means more lenient."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils import baseline
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import OPTIONS, WAIVER_OPTIONS, policy, waivers_of

GOOD = {"server": "*", "software": "php", "until": "2027-01-31", "reason": "soon"}


def test_what_is_unset_is_left_to_the_exporter():
    """Only what was asked for is sent, and zero is something."""
    params = {"max_by_severity": {"critical": None, "high": 0}, "max_by_kind": {"outdated": None}, "max_total": None}
    assert policy({**params, "max_age": "1h"}, None, []) == {"max_by_severity": {"high": 0}, "max_age": 3600.0}


def test_all_that_a_task_sets_is_sent():
    """A switch that is off is something, too: it may insist on what a named policy lets go."""
    params = {"policy": "production", "grace": {"high": "7d", "low": None}, "fixable_only": False, "allow_empty": True}
    asked = policy({**dict.fromkeys(OPTIONS), **params}, None, [])
    assert asked == {"policy": "production", "grace": {"high": 604800.0}, "fixable_only": False, "allow_empty": True}


def test_an_empty_baseline_is_sent():
    """It is not the same as none."""
    assert policy({}, [], []) == {"baseline": []}


@pytest.mark.parametrize(
    "params", [{"max_total": -1}, {"max_by_severity": {"low": -1}}, {"max_risk": -0.1}, {"grace": {"high": "-7d"}}, {"max_age": "soon"}]
)
def test_what_cannot_be_meant_is_refused(params):
    """A negative limit would mean something to somebody."""
    with pytest.raises(InvalidInput):
        policy(params, None, [])


def test_waivers_come_from_the_task_and_from_its_file():
    """YAML dates stay the text that was written."""
    text = "waivers:\n- {server: a, software: b, kind: outdated, until: 2027-02-28, reason: 0123}\n"
    assert waivers_of([GOOD], text, "w.yml") == [
        GOOD,
        {"server": "a", "software": "b", "kind": "outdated", "until": "2027-02-28", "reason": "0123"},
    ]


def test_a_waiver_is_passed_on_whole():
    """With its exploit and the severity up to which it holds."""
    waiver = {**GOOD, "exploit": "CVE-2026-*", "kind": "exploitable", "max_severity": "high"}
    assert set(waiver) == set(WAIVER_OPTIONS)
    assert waivers_of([waiver], None) == [waiver]


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
        {"max_severity": "worst"},
        {"exploit": ""},
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


EXPLOITS = [
    {"id": "1", "cve": "CVE-1", "title": None, "risk": 9.8, "first_seen": "x", "waived": False},
    {"id": "2", "cve": None, "title": None, "risk": None, "first_seen": "x", "waived": True},
]
ISSUES = [
    {"fingerprint": "b", "kind": "exploitable", "severity": "critical", "risk": 9.8, "exploits": EXPLOITS, "extra": 1},
    {"fingerprint": "a", "kind": "outdated", "severity": "medium", "risk": None},
    {"fingerprint": "a", "kind": "outdated", "severity": "medium", "risk": None},
]


def test_a_baseline_survives_the_way_there_and_back():
    """Sorted, each once, as bad as they were, and equal issues make equal files."""
    kept = baseline.kept_of(ISSUES)
    text = baseline.document(kept)
    assert text == baseline.document(baseline.kept_of(list(reversed(ISSUES))))
    assert baseline.accepted(text, "b.json") == kept
    assert [(one["fingerprint"], one["severity"]) for one in kept] == [("a", "medium"), ("b", "critical")]


def test_a_baseline_has_no_exploit_that_a_waiver_covers():
    """That one is accepted up to a date only."""
    assert baseline.kept_of(ISSUES)[1]["exploits"] == [{"id": "1", "cve": "CVE-1", "title": None, "risk": 9.8}]


@pytest.mark.parametrize("text", ['["a"]', '{"version": 1, "issues": [{"fingerprint": "a"}]}', '{"version": 1}'])
def test_a_baseline_that_does_not_tell_how_bad_it_was_is_refused(text):
    """With it, what got worse would pass; the message says how to write a new one."""
    with pytest.raises(InvalidInput, match=r"how bad.*baseline_mode: create.*--write-baseline"):
        baseline.accepted(text, "b.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        '{"version": 3, "issues": []}',
        '{"version": 2}',
        '{"version": 2, "issues": [{}]}',
        '{"version": 2, "issues": [{"fingerprint": "a"}]}',
        '{"version": 2, "issues": [{"fingerprint": "a", "kind": "outdated", "severity": "worst"}]}',
        '{"version": 2, "issues": [{"fingerprint": "a", "kind": "outdated", "severity": "low", "risk": "9"}]}',
        '{"version": 2, "issues": [{"fingerprint": "a", "kind": "exploitable", "severity": "low", "exploits": ["x"]}]}',
    ],
)
def test_a_broken_baseline_is_refused(text):
    """It is not an empty one, with which everything would be new, nor one that hides everything."""
    with pytest.raises(InvalidInput):
        baseline.accepted(text, "b.json")
