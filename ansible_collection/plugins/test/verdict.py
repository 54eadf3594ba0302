# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests on verdicts and issues."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

SEVERITIES = ("critical", "high", "medium", "low")
VERDICTS = ("pass", "fail", "unknown")


def _verdict(result: object, test: str) -> str:
    """Return the verdict of a gate's result; a task that was skipped has none, and so did not pass."""
    if isinstance(result, dict):
        if result.get("verdict") in VERDICTS:
            return result["verdict"]
        if result.get("skipped") or result.get("failed") or result.get("unreachable"):
            return "unknown"
    raise AnsibleFilterError("{0} needs what patrolserver.monitoring.gate returned".format(test))


def gate_passed(result: object) -> bool:
    """Tell whether the gate passed."""
    return _verdict(result, "gate_passed") == "pass" and result.get("passed") is True and not result.get("failed")


def gate_unknown(result: object) -> bool:
    """Tell whether the gate could not be judged."""
    return _verdict(result, "gate_unknown") == "unknown"


def at_least(issue: object, severity: str) -> bool:
    """Tell whether an issue is of that severity or worse."""
    own = issue.get("severity") if isinstance(issue, dict) else issue
    for name in (own, severity):
        if name not in SEVERITIES:
            raise AnsibleFilterError("at_least knows the severities {0}".format(", ".join(SEVERITIES)))
    return SEVERITIES.index(own) <= SEVERITIES.index(severity)


class TestModule:
    """The tests of this file."""

    def tests(self) -> dict:
        """Return them by name."""
        return {"gate_passed": gate_passed, "gate_unknown": gate_unknown, "at_least": at_least}
