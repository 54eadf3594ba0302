# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read at night: the worst first, on one screen."""

from __future__ import annotations

import json

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils import judging, messages

SEVERITIES = ["critical", "high", "medium", "low"]


def issue(number, server, severity, risk=None):
    """Return an issue as the exporter writes it."""
    return {
        "fingerprint": "f{0}".format(number),
        "account": "main",
        "server_id": server,
        "server": "web{0}".format(server),
        "kind": "exploitable",
        "severity": severity,
        "software": "PHP",
        "canonical_name": "php",
        "version": "5.{0}".format(number),
        "update_to": "8.3",
        "risk": risk,
        "exploits": [],
    }


def verdict(**more):
    """Return a verdict with all its keys."""
    return {**judging.nothing_known(), **more}


def fleet(size):
    """Return the failing verdict of a fleet: server N has N % 4 critical issues and a high one, each fifth is in doubt."""
    issues = [issue("{0}.{1}".format(server, n), server, "critical", 9.0 + n / 10) for server in range(size) for n in range(server % 4)]
    issues += [issue("h{0}".format(server), server, "high", 7.5) for server in range(size)]
    doubts = [
        {**judging.reason("data_too_old", "web{0}: its last poll is old; refresh it.".format(n)), "server": "web{0}".format(n)}
        for n in range(0, size, 5)
    ]
    servers = [
        {
            "account": "main",
            "id": n,
            "name": "web{0}".format(n),
            "verdict": "fail" if n % 4 else "unknown",
            "counts": {"critical": n % 4, "high": 1, "medium": 0, "low": 0},
            "reasons": [],
        }
        for n in range(size)
    ]
    critical = [one for one in issues if one["severity"] == "critical"]
    return verdict(
        verdict="fail",
        reasons=[judging.reason("limit_exceeded", "Open issues that are critical: many, and max_by_severity.critical allows 0."), *doubts],
        servers=servers,
        servers_by_verdict={"pass": 0, "fail": size * 3 // 4, "unknown": size // 4},
        violations=[
            {"limit": "max_by_severity.critical", "allowed": 0, "found": len(critical), "issues": critical},
            {"limit": "max_by_severity.high", "allowed": 0, "found": len(issues), "issues": issues},
        ],
        waived=[issue("w{0}".format(n), n, "low") for n in range(size)],
    )


@pytest.mark.parametrize("size", [4, 40, 1000])
@pytest.mark.parametrize("listed", [3, 20, 50])
def test_a_message_has_so_many_lines_at_most(size, listed):
    """However large the fleet is, and it says that there is more."""
    lines = messages.summary(fleet(size), listed).splitlines()
    assert len(lines) <= listed
    assert lines[0].startswith("The gate failed; of {0} servers {1} over a limit".format(size, size * 3 // 4))
    assert "max_by_severity.critical allows 0" in lines[1]
    assert all(len(line) <= 300 for line in lines)
    if size > listed:
        assert lines[-1].startswith("And ")
        assert "max_listed" in lines[-1]


def test_the_worst_servers_and_their_worst_software_come_first():
    """By the number of critical issues, and by risk."""
    lines = messages.summary(fleet(40)).splitlines()
    first = lines[2]
    assert first.startswith("web3: critical: PHP 5.3.2 is exploitable, update to 8.3, risk 9.2; critical: PHP 5.3.1 ")
    assert first.endswith("; and 2 more")
    assert sum("its last poll is old" in line for line in lines) == 5


def test_a_single_reason_is_a_single_sentence():
    """And one that passed tells how many did."""
    one = verdict(reasons=[judging.reason("unreachable", "exporter: no answer: 127.0.0.1:9: refused")])
    assert messages.summary(one) == "The gate could not be judged: exporter: no answer: 127.0.0.1:9: refused."
    passed = verdict(verdict="pass", servers_by_verdict={"pass": 900, "fail": 0, "unknown": 0})
    assert messages.summary(passed) == "The gate passed for 900 servers."
    assert messages.summary(verdict()) == "The gate could not be judged: no reason was given."


def test_what_the_module_could_not_write_is_told_first():
    """Before all that the exporter found, wherever it stands."""
    whole = fleet(40)
    whole["reasons"].append(judging.reason("report", "report_file: /x cannot be written: No space left on device"))
    assert "No space left" in messages.summary(whole).splitlines()[1]
    assert messages.shortened(whole, 5)["reasons"][0]["code"] == "report"


def test_a_short_verdict_has_the_same_keys_and_counts_what_it_leaves_out():
    """The worst stay, and 1,000 servers make no longer answer than 40."""
    for size in (40, 1000):
        whole = fleet(size)
        short = messages.shortened(whole, 20)
        assert set(short) == set(whole)
        assert len(short["servers"]) + short["servers_not_listed"] == size
        assert len(short["reasons"]) + short["reasons_not_listed"] == len(whole["reasons"])
        assert len(short["waived"]) + short["waived_not_listed"] == size
        listed = {one["fingerprint"] for violation in short["violations"] for one in violation["issues"]}
        assert len(listed) == 20
        assert short["issues_not_listed"] == whole["violations"][1]["found"] - 20
        assert [violation["found"] for violation in short["violations"]] == [v["found"] for v in whole["violations"]]
        assert {one["severity"] for one in short["violations"][0]["issues"]} == {"critical"}
        assert short["servers"][0]["counts"]["critical"] == 3
        assert len(json.dumps(short)) < 40_000
    all_of_it = messages.shortened(whole, 5000)
    assert [all_of_it[name + "_not_listed"] for name in ("servers", "issues", "reasons", "waived")] == [0, 0, 0, 0]


def test_what_a_failed_task_prints_is_no_longer_for_a_larger_fleet():
    """A few of the very worst of each list, and the rest counted; what is short anyhow stays whole."""
    sizes = []
    for size in (100, 1000):
        whole = fleet(size)
        whole["unused_waivers"] = [{"server": "web{0}".format(number), "software": "php"} for number in range(size)]
        short = messages.compact(whole)
        assert set(short) == set(whole)
        for name in ("servers", "reasons", "waived", "unused_waivers"):
            assert 1 <= len(short[name]) <= 20
            assert len(short[name]) + short[name + "_not_listed"] == len(whole[name])
        listed = {one["fingerprint"] for violation in short["violations"] for one in violation["issues"]}
        assert len(listed) + short["issues_not_listed"] == whole["violations"][1]["found"]
        assert short["servers"][0]["counts"]["critical"] == 3
        sizes.append(len(json.dumps(short)))
    assert sizes[1] < sizes[0] + 100 < 12_000
    assert messages.compact(fleet(3)) == messages.shortened(fleet(3), 20)


def test_an_entry_longer_than_a_screen_is_listed_all_the_same():
    """An empty list beside a count would tell nothing."""
    whole = fleet(2)
    whole["reasons"] = [judging.reason("limit_exceeded", "x" * 9000), judging.reason("data_too_old", "y")]
    short = messages.compact(whole)
    assert (len(short["reasons"]), short["reasons_not_listed"]) == (1, 1)


def test_of_many_waivers_that_ended_there_are_no_more_warnings_than_lines():
    """The last one says how many it leaves out."""
    ended = [{"software": "php", "server": "web{0}".format(number), "until": "2020-01-31"} for number in range(50)]
    warnings = messages.of_expired(verdict(expired_waivers=ended), 20)
    assert (len(warnings), warnings[-1]) == (20, "31 more waivers have ended; expired_waivers lists them")
    assert messages.of_expired(verdict(expired_waivers=ended[:1]), 20) == ["the waiver for php on web0 ended on 2020-01-31"]
