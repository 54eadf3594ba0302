#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is accepted, why and up to when."""

from __future__ import annotations

DOCUMENTATION = r"""
module: waiver_report
short_description: Report which waivers cover what, which end soon, and which are over or cover nothing
version_added: 0.2.0
description:
  - Reads from the exporter which open issues are accepted, by the waivers of its configuration and by those that the task brings, and sorts them by waiver.
    Waivers of either kind that are over or cover nothing are told, too.
  - It never fails for a waiver. Waivers that cannot be meant, and an exporter that refuses them or cannot be asked, fail it.
author:
  - The patrolserver-exporter founders (!UNKNOWN)
extends_documentation_fragment:
  - action_common_attributes
  - patrolserver.monitoring.exporter
  - patrolserver.monitoring.exporter.actiongroup
  - patrolserver.monitoring.transport
  - patrolserver.monitoring.waivers
attributes:
  check_mode:
    support: full
    details: No file is written.
  diff_mode:
    support: none
  platform:
    platforms: all
options:
  servers:
    description: Ids, names, or globs on names. Each has to match a server.
    type: list
    elements: str
    default: ["*"]
  account:
    description: The account that the servers belong to, where names are not unique over accounts.
    type: str
  policy:
    description: The name of a policy of the exporter's configuration, where that has no C(gate.default_policy). It decides whether a task may bring waivers.
    type: str
  expiring_within:
    description: A waiver that covers an issue and ends within this time is V(expiring). A duration like V(14d).
    type: str
    default: 14d
  report_file:
    description:
      - Write the report to this file, in Markdown if its name ends in C(.md), otherwise in JSON. Its folder has to exist.
    type: path
seealso:
  - module: patrolserver.monitoring.gate
"""

EXAMPLES = r"""
- name: Tell what is accepted, and what of it ends this month
  patrolserver.monitoring.waiver_report:
    waivers:
      - server: "*.shop.example.org"
        software: php
        kind: outdated
        until: "2027-01-31"
        reason: replaced in the first quarter
    expiring_within: 31d
    report_file: /var/lib/deploy/waivers.md
  register: waivers

- name: Say it
  ansible.builtin.debug:
    msg: "{{ waivers.msg }}"
"""

RETURN = r"""
msg:
  description: How many waivers there are, by state.
  returned: always
  type: str
  sample: "Waivers: 3 active, 1 expiring, 1 expired, 0 unused; they cover 12 issues."
waivers:
  description:
    - Each waiver, those that need a decision first.
    - C(state) is V(expired), V(expiring), V(unused) or V(active). Those of the configuration are V(unused) where they cover no open issue on any server,
      whatever O(servers) says.
    - C(servers) and C(software) are those of the issues that it covers.
  returned: always
  type: list
  elements: dict
  sample:
    - state: active
      reason: replaced in the first quarter
      until: "2027-01-31"
      days_left: 66
      issues: 2
      servers: [a.shop.example.org]
      software: [php]
counts:
  description: How many waivers there are in each state.
  returned: always
  type: dict
  sample: {expired: 0, expiring: 0, unused: 0, active: 1}
issues:
  description: The open issues that are covered, or some of whose exploits are.
  returned: always
  type: list
  elements: dict
  sample: []
configuration_known:
  description:
    - Whether the exporter told of its configuration's waivers. One of an earlier version does not; then V(unused) is known of the task's waivers only, and
      V(expired) of those of the configuration only while there are issues that they would cover.
  returned: always
  type: bool
  sample: true
unknown_servers:
  description: On how many servers nobody can vouch for what is open, so that a waiver may cover more there.
  returned: always
  type: int
  sample: 0
report_file:
  description: The report that was written, or would be in check mode; none without O(report_file).
  returned: always
  type: str
  sample: /var/lib/deploy/waivers.md
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils import waivers
from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import EXPORTER_RULES, exporter_options
from ansible_collections.patrolserver.monitoring.plugins.module_utils.files import write_text
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import fail_on_trouble
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import OPTIONS


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **exporter_options(),
            "servers": {"type": "list", "elements": "str", "default": ["*"]},
            "account": {"type": "str"},
            "policy": {"type": "str"},
            "waivers": OPTIONS["waivers"],
            "waivers_file": {"type": "path"},
            "expiring_within": {"type": "str", "default": "14d"},
            "report_file": {"type": "path"},
        },
        supports_check_mode=True,
        **EXPORTER_RULES,
    )
    result = {"changed": False, "report_file": None, **waivers.nothing()}
    with fail_on_trouble(module, result):
        result.update(waivers.report(module.params))
        path = module.params["report_file"]
        if path:
            text = waivers.markdown(result) if path.lower().endswith(".md") else waivers.as_json(result)
            write_text("report_file", path, text, module.check_mode)
            result.update(report_file=path, changed=True)
        module.exit_json(msg=waivers.summary(result), **result)


if __name__ == "__main__":
    main()
