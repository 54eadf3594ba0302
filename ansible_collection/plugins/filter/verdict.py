# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters on verdicts and package facts."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import PatrolServerError
from ansible_collections.patrolserver.monitoring.plugins.module_utils.reports import sentence, violating
from ansible_collections.patrolserver.monitoring.plugins.module_utils.software import from_package_facts

FULL = {"n": "name", "v": "version", "p": "parent", "l": "location"}


def gate_issues(result: object) -> list:
    """Return the issues that broke a limit, each once."""
    if not isinstance(result, dict) or not isinstance(result.get("violations"), list):
        raise AnsibleFilterError("gate_issues needs what patrolserver.monitoring.gate returned")
    return violating(result)


def issue_lines(issues: object) -> list:
    """Return each issue in one line."""
    if not isinstance(issues, list):
        raise AnsibleFilterError("issue_lines needs a list of issues")
    try:
        return ["{0}: {1}".format(issue["server"], sentence(issue)) for issue in issues]
    except (KeyError, TypeError):
        raise AnsibleFilterError("issue_lines needs issues as the exporter describes them") from None


def bucket_software(packages: object) -> list:
    """Return package facts as the ``software`` of M(patrolserver.monitoring.software_bucket)."""
    if not isinstance(packages, dict):
        raise AnsibleFilterError("bucket_software needs ansible_facts.packages")
    try:
        lines = from_package_facts(packages)
    except PatrolServerError as error:
        raise AnsibleFilterError(str(error)) from None
    return [{FULL[short]: value or None for short, value in line.items()} for line in lines]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict:
        """Return them by name."""
        return {"gate_issues": gate_issues, "issue_lines": issue_lines, "bucket_software": bucket_software}
