# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests and filters on results."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.patrolserver.monitoring.plugins.filter.verdict import FilterModule
from ansible_collections.patrolserver.monitoring.plugins.test.verdict import TestModule as Tests

TESTS, FILTERS = Tests().tests(), FilterModule().filters()


@pytest.mark.parametrize(
    ("result", "passed", "unknown"),
    [
        ({"verdict": "pass", "passed": True}, True, False),
        ({"verdict": "pass", "passed": False}, False, False),
        ({"verdict": "pass", "passed": True, "failed": True}, False, False),
        ({"verdict": "fail", "passed": False, "failed": True}, False, False),
        ({"verdict": "unknown", "passed": False}, False, True),
        ({"skipped": True}, False, True),
        ({"failed": True, "msg": "no module"}, False, True),
        ({"unreachable": True}, False, True),
    ],
)
def test_only_a_whole_pass_is_one(result, passed, unknown):
    """What was skipped or broke did not pass."""
    assert TESTS["gate_passed"](result) is passed
    assert TESTS["gate_unknown"](result) is unknown


@pytest.mark.parametrize("result", [None, "pass", True, {}, {"verdict": "PASS"}, [{"verdict": "pass"}]])
def test_what_is_no_result_of_the_gate_is_an_error(result):
    """A typo must not let a deploy through, nor hide it."""
    with pytest.raises(AnsibleFilterError):
        TESTS["gate_passed"](result)


def test_severities_compare():
    """Worse is at least as much."""
    assert TESTS["at_least"]({"severity": "critical"}, "high")
    assert TESTS["at_least"]("high", "high")
    assert not TESTS["at_least"]("low", "medium")
    with pytest.raises(AnsibleFilterError):
        TESTS["at_least"]("low", "urgent")


@pytest.mark.parametrize(("name", "value"), [("gate_issues", {}), ("issue_lines", "x"), ("issue_lines", [{}]), ("bucket_software", [])])
def test_filters_refuse_what_they_do_not_know(name, value):
    """With an error of Ansible's, not a traceback."""
    with pytest.raises(AnsibleFilterError):
        FILTERS[name](value)
