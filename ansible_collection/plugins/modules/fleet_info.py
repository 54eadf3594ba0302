#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers with their counts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_info
short_description: Read servers with their counts, states and the age of their data from the exporter
version_added: 0.1.0
description:
  - Reads what the exporter knows of each server, page by page, and adds it up.
  - A name or an id in O(servers) that no server has is an error; a glob may match none.
  - A server that was never polled successfully has no counts and is listed in RV(unpolled), so that it does not look clean.
author:
  - The patrolserver-exporter founders (!UNKNOWN)
extends_documentation_fragment:
  - action_common_attributes
  - patrolserver.monitoring.exporter
  - patrolserver.monitoring.exporter.actiongroup
  - patrolserver.monitoring.transport
  - patrolserver.monitoring.selection
attributes:
  check_mode:
    support: full
    details: It only reads.
  diff_mode:
    support: none
  platform:
    platforms: all
options:
  max_age:
    description:
      - Servers whose last successful poll is older, or that never had one, are listed in RV(stale).
      - A number of seconds or a duration like V(90m), V(24h), V(1h30m).
    type: str
    default: 24h
  page_size:
    description: Servers in one request, from 1 to 1000.
    type: int
    default: 500
seealso:
  - plugin: patrolserver.monitoring.servers
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Read the fleet
  patrolserver.monitoring.fleet_info:
  register: fleet

- name: Show the servers that something critical is open on
  ansible.builtin.debug:
    msg: "{{ fleet.servers | selectattr('issues') | selectattr('issues.critical', 'gt', 0) | map(attribute='name') | list }}"
"""

RETURN = r"""
servers:
  description: The servers, as the exporter describes them.
  returned: always
  type: list
  elements: dict
  sample:
    - account: main
      id: 12
      name: web1.example.org
      verified: true
      issues: {critical: 0, high: 1, medium: 2, low: 0, total: 3, waived: 0}
      software: {supported: 40, outdated: 2, unsupported: 1, unknown: 3}
      exploits: 0
      exploits_unknown_risk: 0
      exploit_risk_max: 0
      scanning: false
      last_scan_at: "2026-11-24T03:00:00Z"
      last_poll_at: "2026-11-24T07:12:00Z"
      poll_success: true
      poll_complete: true
      data_age_seconds: 312.5
      unconfirmed_event: false
      labels: {team: web}
      unknown_because: []
count:
  description: How many servers there are.
  returned: always
  type: int
  sample: 1
totals:
  description: The open issues of those whose counts are known, added up. Each is none where there are servers and no counts are known.
  returned: always
  type: dict
  sample: {critical: 0, high: 1, medium: 2, low: 0, total: 3, waived: 0}
stale:
  description: Names of the servers whose data is older than O(max_age), or of unknown age.
  returned: always
  type: list
  elements: str
  sample: []
unpolled:
  description: Names of the servers that were never polled successfully.
  returned: always
  type: list
  elements: str
  sample: []
oldest_data_age_seconds:
  description: The age of the oldest data, none if there is no server or one was never polled.
  returned: always
  type: float
  sample: 312.5
accounts:
  description: The accounts with their last success, as the exporter's status tells them.
  returned: always
  type: list
  elements: dict
  sample:
    - name: main
      up: true
      last_success_at: "2026-11-24T07:15:00Z"
      servers: 1
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import (
    EXPORTER_RULES,
    exporter_options,
    selection_options,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import fail_on_trouble

COUNTED = ("critical", "high", "medium", "low", "total", "waived")


def nothing() -> dict:
    """Return the keys of an answer that did not come."""
    return {
        "servers": [],
        "count": 0,
        "totals": {},
        "stale": [],
        "unpolled": [],
        "oldest_data_age_seconds": None,
        "accounts": [],
    }


def summary(servers: list, max_age: float) -> dict:
    """Add the servers up."""
    ages = [server.get("data_age_seconds") for server in servers]
    known = [age for age in ages if age is not None]
    counted = [server["issues"] for server in servers if server.get("issues") is not None]
    return {
        "servers": servers,
        "count": len(servers),
        "totals": {
            name: sum(counts.get(name, 0) for counts in counted) if counted or not servers else None for name in COUNTED
        },
        "stale": [server["name"] for server, age in zip(servers, ages) if age is None or age > max_age],
        "unpolled": [server["name"] for server in servers if server.get("last_poll_at") is None],
        "oldest_data_age_seconds": max(known) if known and len(known) == len(ages) else None,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **exporter_options(),
            **selection_options(),
            "max_age": {"type": "str", "default": "24h"},
            "page_size": {"type": "int", "default": 500},
        },
        supports_check_mode=True,
        **EXPORTER_RULES,
    )
    with fail_on_trouble(module, nothing()):
        max_age = seconds(module.params["max_age"], "max_age")
        exporter = Exporter(module.params)
        exporter.check_accounts(module.params["account"])
        exporter.check_named(module.params)
        answer = summary(list(exporter.servers(module.params, module.params["page_size"])), max_age)
        answer["accounts"] = exporter.status()["accounts"]
        module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
