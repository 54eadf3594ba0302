#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open issues of servers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: issues_info
short_description: Read the issues of servers from the exporter
version_added: 0.1.0
description:
  - Reads the issues that the exporter knows, with all filters of its API, page by page.
  - Values within one filter are alternatives; different filters have to hold together.
  - A name or an id in O(servers) that no server has is an error, unless O(state) asks for what is fixed, also on servers that are gone. A glob may
    match none.
  - To make a decision, use M(patrolserver.monitoring.gate), which knows what nobody can vouch for.
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
  software:
    description: Globs on the canonical name of the software.
    type: list
    elements: str
    default: []
  waived:
    description: Only waived issues, or only those that are not. If unset, both.
    type: bool
  state:
    description: Which issues, by whether they are fixed.
    type: str
    choices: [open, fixed, all]
    default: open
  limit:
    description: Stop after so many issues, V(0) for all. RV(truncated) tells whether there were more.
    type: int
    default: 0
  page_size:
    description: Issues in one request, from 1 to 1000.
    type: int
    default: 500
seealso:
  - plugin: patrolserver.monitoring.issues
    plugin_type: lookup
  - module: patrolserver.monitoring.gate
"""

EXAMPLES = r"""
- name: Read what is critical on the web servers
  patrolserver.monitoring.issues_info:
    servers: ["web*.example.org"]
    severity: [critical]
    waived: false
  register: found

- name: Show it
  ansible.builtin.debug:
    msg: "{{ found.issues | map(attribute='software') | unique | list }}"
"""

RETURN = r"""
issues:
  description:
    - The issues, as the exporter describes them.
    - C(exploits) are the known exploits that an exploitable issue stands for, worst first, each with id, CVE, title, C(risk) and C(first_seen). A risk
      that is none is one that nobody knows, so that it may be the worst.
    - C(severity_since) is when the issue got the severity that it has now.
    - C(software) is empty for an issue of the server itself, which has a C(title).
  returned: always
  type: list
  elements: dict
  sample:
    - fingerprint: 3f9a1c2b7d5e4f60
      account: main
      server_id: 12
      server: web1.example.org
      class: exploit
      kind: exploitable
      severity: critical
      software: PHP
      canonical_name: php
      version: 5.2.17
      update_to:
      location: /
      parent:
      risk: 9.8
      exploits:
        - id: "41"
          cve: CVE-2026-0001
          title: Overflow
          risk: 9.8
          first_seen: "2026-11-23T07:12:00Z"
          waived: false
          waiver:
      title:
      description:
      first_seen: "2026-11-20T07:12:00Z"
      severity_since: "2026-11-23T07:12:00Z"
      last_seen: "2026-11-24T07:12:00Z"
      fixed_at:
      confirmed: true
      waived: false
      waiver:
count:
  description: How many issues were returned.
  returned: always
  type: int
  sample: 1
counts:
  description: How many of them there are by severity.
  returned: always
  type: dict
  sample: {critical: 1, high: 0, medium: 0, low: 0}
truncated:
  description: Whether O(limit) cut the list.
  returned: always
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import (
    EXPORTER_RULES,
    SEVERITIES,
    exporter_options,
    selection_options,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import fail_on_trouble


def read(params: dict) -> dict:
    """Return the issues and their counts."""
    if params["limit"] < 0:
        raise InvalidInput("limit: it has to be 0, for all, or more, not {0}".format(params["limit"]))
    exporter = Exporter(params)
    exporter.check_accounts(params["account"])
    if params["state"] == "open":
        exporter.check_named(params)
    issues, truncated = [], False
    for issue in exporter.issues(params, params["page_size"]):
        if params["limit"] and len(issues) == params["limit"]:
            truncated = True
            break
        issues.append(issue)
    counts = {severity: sum(issue.get("severity") == severity for issue in issues) for severity in SEVERITIES}
    return {"issues": issues, "count": len(issues), "counts": counts, "truncated": truncated}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **exporter_options(),
            **selection_options(),
            "software": {"type": "list", "elements": "str", "default": []},
            "waived": {"type": "bool"},
            "state": {"type": "str", "choices": ["open", "fixed", "all"], "default": "open"},
            "limit": {"type": "int", "default": 0},
            "page_size": {"type": "int", "default": 500},
        },
        supports_check_mode=True,
        **EXPORTER_RULES,
    )
    with fail_on_trouble(module, {"issues": [], "count": 0, "counts": {}, "truncated": False}):
        module.exit_json(changed=False, **read(module.params))


if __name__ == "__main__":
    main()
