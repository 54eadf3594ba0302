# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a verdict to the end of a task."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils import errors, judging

VERDICTS, MODES, UNKNOWNS = ("pass", "fail", "unknown"), ("enforce", "warn", "report"), ("fail", "warn")


@pytest.mark.parametrize(("mode", "on_unknown"), list(itertools.product(MODES, UNKNOWNS)))
def test_a_pass_never_blocks(mode, on_unknown):
    """Whatever the mode."""
    assert not judging.blocks("pass", mode, on_unknown)
    assert not judging.warns("pass", mode, on_unknown)


@pytest.mark.parametrize(
    ("verdict", "mode", "on_unknown", "blocks", "warns"),
    [
        ("fail", "enforce", "warn", True, False),
        ("unknown", "enforce", "warn", True, True),
        ("fail", "warn", "fail", False, True),
        ("unknown", "warn", "fail", True, True),
        ("unknown", "warn", "warn", False, True),
        ("fail", "report", "fail", False, False),
        ("unknown", "report", "fail", True, False),
        ("unknown", "report", "warn", False, True),
        ("something new", "report", "fail", True, False),
    ],
)
def test_modes(verdict, mode, on_unknown, blocks, warns):
    """Unknown data stops a deploy unless somebody said otherwise."""
    assert judging.blocks(verdict, mode, on_unknown) is blocks
    assert judging.warns(verdict, mode, on_unknown) is warns


@pytest.mark.parametrize(
    ("error", "code", "misconfigured"),
    [
        (errors.ConnectionFailed("x"), "unreachable", False),
        (errors.Refused("x", 503), "refused", False),
        (errors.Refused("x", 400), "refused", True),
        (errors.Unreadable("x"), "unreadable", False),
        (errors.TimedOut("x"), "wait_timeout", False),
        (errors.InvalidInput("x"), "invalid_input", True),
        (errors.PatrolServerError("x"), "error", False),
    ],
)
def test_trouble_is_unknown_with_a_reason(error, code, misconfigured):
    """All keys are there, and none says that anything passed."""
    verdict = judging.trouble(error)
    assert set(verdict) == set(judging.nothing_known())
    assert (verdict["verdict"], verdict["passed"]) == ("unknown", False)
    assert [reason["code"] for reason in verdict["reasons"]] == [code]
    assert judging.misconfigured(error) is misconfigured


def test_an_answer_that_lacks_keys_gets_them():
    """And what is no list does not become one."""
    verdict = judging.known({"verdict": "pass", "passed": True, "servers": None, "more": 1})
    assert set(verdict) == set(judging.nothing_known())
    assert (verdict["verdict"], verdict["servers"]) == ("pass", [])


PASS = {
    "verdict": "pass",
    "passed": True,
    "servers": [{"name": "a", "verdict": "pass"}],
    "servers_by_verdict": {"pass": 1, "fail": 0, "unknown": 0},
}
NONE = {"pass": 0, "fail": 0, "unknown": 0}
QUESTION = {"servers": ["a"], "policy": {}}


def test_a_sound_answer_is_taken():
    """Whether it lists the servers that pass, or only counts them."""
    assert judging.contradiction(PASS, QUESTION) is None
    assert judging.contradiction({**PASS, "servers": [], "servers_not_listed": 1}, QUESTION) is None
    assert judging.contradiction({"verdict": "fail", "passed": False}, QUESTION) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "fine"},
        {"verdict": "fail"},
        {"passed": False},
        {"passed": 1},
        {"servers": None},
        {"servers": []},
        {"servers_by_verdict": None},
        {"servers_by_verdict": {"pass": 1}},
        {"servers_by_verdict": {**NONE, "pass": True}},
        {"servers_by_verdict": NONE},
        {"servers_by_verdict": NONE, "servers": []},
        {"servers_by_verdict": NONE, "servers": [], "servers_not_listed": 1},
        {"servers_by_verdict": {**NONE, "pass": 2}},
        {"servers_by_verdict": {**NONE, "pass": 1, "unknown": 1}, "servers_not_listed": 1},
        {"servers_by_verdict": {**NONE, "pass": 1, "fail": -1, "unknown": 1}},
        {"servers_by_verdict": {**NONE, "pass": 1, "of a newer version": 1}},
        {"servers": [{"name": "a", "verdict": "unknown"}]},
        {"servers": ["a"]},
        {"violations": [{"limit": "max_total"}]},
        {"issues_not_listed": 1},
        {"reasons": [{"code": "x", "message": "y"}]},
        {"reasons": ["x"]},
        {"reasons": "x"},
        {"servers": [{"name": "a", "verdict": "pass", "reasons": [{"code": "x", "message": "y", "blocking": True}]}]},
        {"servers_by_verdict": {**NONE, "pass": 2}, "servers_not_listed": "1"},
        {"servers": [{"name": "a", "verdict": "pass"}] * 2, "servers_not_listed": -1},
    ],
)
def test_a_pass_that_contradicts_itself_or_counts_nobody_is_none(wrong):
    """A missing list is no proof that anything passed."""
    assert judging.contradiction({**PASS, **wrong}, QUESTION) is not None


NOTE = {"code": "unused_waiver", "message": "x", "blocking": False}
LISTED = [
    {"account": "main", "id": 7, "name": "Web1.example.org", "verdict": "pass", "reasons": [NOTE]},
    {"account": "main", "id": 8, "name": "[2001:db8::1]", "verdict": "pass", "reasons": []},
]
OF_TWO = {**PASS, "policy": "production", "servers": LISTED, "servers_by_verdict": {**NONE, "pass": 2}}
ONE_COUNTED = {"servers": LISTED[:1], "servers_not_listed": 1}


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        ({"servers": ["web1.EXAMPLE.org", 8]}, {}),
        ({"servers": ["7", "08", "*", "w?b1*", "[2001:db8::1]"]}, {}),
        ({"servers": ["*"], "account": "main"}, {}),
        ({"servers": ["*"], "policy": {"policy": "production", "max_total": 3}}, {}),
        ({"servers": ["*"], "policy": {"max_total": 3}}, {"policy": "builtin"}),
        ({"servers": ["web2.example.org", "WEB1*"]}, ONE_COUNTED),
        ({"servers": ["web2.example.org"], "account": "main"}, {"servers": [], "servers_not_listed": 2}),
    ],
)
def test_a_pass_that_answers_the_question_is_taken(asked, more):
    """Servers by id, by name however it is spelled, or by a glob; what is only counted may be any of them."""
    assert judging.contradiction({**OF_TWO, **more}, {"policy": {}, **asked}) is None


@pytest.mark.parametrize(
    ("asked", "more", "told"),
    [
        ({"servers": ["web2.example.org", "*"]}, {}, "without 'web2.example.org', which was asked for"),
        ({"servers": ["9", "*"]}, {}, "without '9'"),
        ({"servers": ["db-*", "*"]}, {}, "without 'db-*'"),
        ({"servers": ["7"]}, {}, "for '[2001:db8::1]', which was not asked for"),
        ({"servers": ["web1.*"]}, {}, "for '[2001:db8::1]', which was not asked for"),
        ({"servers": ["web2.*"]}, ONE_COUNTED, "for 'Web1.example.org', which was not asked for"),
        ({"servers": ["None"]}, {"servers": [{**LISTED[0], "id": None, "name": None}, LISTED[1]]}, "for 'None', which was not"),
        ({"servers": ["*"], "account": "other"}, {}, "not list in account 'other'"),
        ({"servers": ["*"], "account": "other"}, ONE_COUNTED, "not list in account 'other'"),
        ({"servers": ["*"], "policy": {"policy": "strict"}}, {}, "by policy 'production', and 'strict' was asked for"),
        ({"servers": ["*"], "policy": {"policy": "strict"}}, {"policy": None}, "by policy None, and 'strict' was asked for"),
    ],
)
def test_a_pass_for_another_question_is_none(asked, more, told):
    """Other servers, another account, another policy."""
    assert told in judging.contradiction({**OF_TWO, **more}, {"policy": {}, **asked})


def test_what_nobody_knows_is_not_nought():
    """Counts are none then."""
    assert judging.nothing_known()["counts"] is None
    assert judging.known({"verdict": "unknown", "passed": False, "counts": None})["counts"] is None


@pytest.mark.parametrize(
    ("judged_at", "sound"),
    [
        (None, True),
        ("2026-11-28T05:00:00Z", True),
        ("2026-11-28T06:00:00+01:00", True),
        ("2026-11-28T04:46:00.5Z", True),
        ("2026-11-29T05:00:00Z", True),
        ("2026-11-28T04:44:59Z", False),
        ("2019-01-01T00:00:00Z", False),
        ("2026-11-28T05:00:00", False),
        ("lately", False),
        (1795842000, False),
    ],
)
def test_an_answer_that_somebody_kept_is_none(judged_at, sound):
    """It passes what may have failed since; the clocks of two machines may differ by a quarter of an hour."""
    wrong = judging.contradiction({**PASS, "judged_at": judged_at}, QUESTION, 1795842000.0)
    assert (wrong is None) is sound
    assert sound or "not of now" in wrong
