#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy gate."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
short_description: Let a deployment go on only if the issues of its servers allow it
version_added: 0.1.0
description:
  - Asks the exporter for its verdict on a list of servers, in one request however many they are.
  - The verdict is V(pass), V(fail), or V(unknown) when the data is old, missing or partial, a server is not known, or the exporter cannot be reached.
    Only V(pass) lets a deployment go on.
  - Fails closed. A list without servers, a broken file of waivers, a missing baseline and an answer that cannot be read do not pass.
  - Returns the same keys whether it fails or not.
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
    details: >-
      Judges and fails as usual; a refresh is not asked for, and no file is written. O(scanned_after) does not count, since
      M(patrolserver.monitoring.scan) starts no scan then. What runs already is waited for.
  diff_mode:
    support: full
    details: Shows what is written to O(baseline_file).
  platform:
    platforms: all
options:
  max_listed:
    description:
      - How many lines the message has at most, and how many servers, issues, reasons and waivers a failed task returns at most, the worst first. What is
        left out is counted in RV(servers_not_listed) and the like, and stands in O(report_file).
      - Unset, the message has 20 lines, and a failed task returns no more than fits on a screen, however large the fleet is. With O(detail) it returns
        what that says.
      - A task that does not fail returns all of them, as O(detail) says.
    type: int
  policy:
    description:
      - The name of a policy of the exporter's configuration (C(gate.policies)). Unset, its C(gate.default_policy) holds, or the built-in one.
      - What the task sets beside it makes it stricter only, unless C(gate.inline) of the exporter's configuration says otherwise. What the exporter
        refuses fails the task in every mode.
    type: str
  servers:
    description: Ids, names, or globs on names. Each has to match a server.
    type: list
    elements: str
    required: true
  account:
    description: The account that the servers belong to, where names are not unique over accounts.
    type: str
  max_by_severity:
    description:
      - How many open issues are allowed. A limit counts issues of its severity and of worse ones.
      - Unset means no limit, but V(critical) is 0 unless set.
    type: dict
    suboptions:
      critical:
        description: Limit for critical ones.
        type: int
      high:
        description: Limit for high and critical ones.
        type: int
      medium:
        description: Limit for medium and worse ones.
        type: int
      low:
        description: Limit for all.
        type: int
  max_by_kind:
    description: How many open issues of a kind are allowed. Unset means no limit.
    type: dict
    suboptions:
      unsupported:
        description: Limit for software that is not supported any more.
        type: int
      outdated:
        description: Limit for software that a newer bug-fix release exists of.
        type: int
      exploitable:
        description: Limit for software with known exploits.
        type: int
      reported:
        description: Limit for issues that so far only an event reported.
        type: int
  max_total:
    description: How many open issues are allowed in all.
    type: int
  max_risk:
    description: The highest risk of an exploit that is allowed, 0 to 10.
    type: float
  max_unknown_software:
    description: For each server, how much software of unknown state it may have before its data counts as half known. The exporter's default is 0.
    type: int
  allow_empty:
    description: Whether a server without any software is fine. The exporter's default is that it is not, since nothing was looked at.
    type: bool
  fixable_only:
    description:
      - Whether outdated or exploitable software without a newer bug-fix release does not count. Unsupported software and reported issues always do.
    type: bool
  grace:
    description:
      - How long an issue of a severity does not count, from when it got a limit's severity or worse. One that got worse counts meanwhile as what
        it was.
      - Seconds, or a duration like V(7d). Unset means that it counts at once.
    type: dict
    suboptions:
      critical:
        description: Grace of critical ones.
        type: str
      high:
        description: Grace of high ones.
        type: str
      medium:
        description: Grace of medium ones.
        type: str
      low:
        description: Grace of low ones.
        type: str
  max_age:
    description: How old the last successful poll of a server may be. Seconds, or a duration like V(24h), which is the exporter's default.
    type: str
  max_scan_age:
    description: How old the last scan of a server may be. Unset means that it does not matter.
    type: str
  baseline_file:
    description:
      - A file with the issues that were there before, as they were. They do not count, so that only new ones do, and those that have become worse.
      - It is the file of C(patrolserver-exporter gate --write-baseline). One of version 1 does not tell how bad the issues were, and fails the task;
        remove it and have it written anew with O(baseline_mode=create).
    type: path
  baseline_mode:
    description:
      - V(use) reads the file, which has to exist.
      - V(create) writes it if it does not exist, from the issues that are open now and not waived.
      - V(ratchet) reads it, and takes out what is fixed once the gate has passed. It never adds an issue.
      - It is written only when the servers could be judged, and atomically.
    type: str
    choices: [use, create, ratchet]
    default: use
  refresh:
    description:
      - Have the exporter poll each server first. Needs an exporter that has room in its budget of calls.
      - It waits until all are polled, within O(wait_timeout).
    type: bool
    default: false
  wait_for_scan:
    description:
      - Wait first, within O(wait_timeout), until no server is being scanned and a poll has seen what the last scan found.
    type: bool
    default: false
  scanned_after:
    description:
      - With O(wait_for_scan), wait for a scan of each server that ended after this time, in RFC 3339.
      - M(patrolserver.monitoring.scan) returns such a time as RV(patrolserver.monitoring.scan#module:requested_at).
    type: str
  wait_timeout:
    description: The bound on all waiting. When it is reached, the verdict is V(unknown). Seconds, or a duration like V(5m).
    type: str
    default: 5m
  poll_interval:
    description: The pause between two looks while waiting.
    type: str
    default: 2s
  mode:
    description:
      - V(enforce) fails unless the verdict is V(pass).
      - V(warn) turns a V(fail) into a warning.
      - V(report) only returns a V(fail).
    type: str
    choices: [enforce, warn, report]
    default: enforce
  on_unknown:
    description: Whether V(unknown), which an exporter that cannot be reached is too, fails in the modes V(warn) and V(report), or only warns.
    type: str
    choices: [fail, warn]
    default: fail
  report_file:
    description:
      - Write a report to this file, before failing. Its folder has to exist.
      - If it cannot be written, the task fails in every mode. A verdict that was V(pass) is then V(unknown), any other stays as it is.
      - A relative path begins at the folder where the task runs; on the controller, that is the playbook's.
    type: path
  report_format:
    description: The format of the report. If unset, the file's name decides; C(.xml) means V(junit), C(.sarif) V(sarif), any other V(json).
    type: str
    choices: [json, junit, sarif]
  detail:
    description:
      - What is returned and reported. V(problems) are at most 1,000 servers and issues that do not pass, the worst first; the rest is counted.
      - If unset, V(all) up to 500 servers, and above that V(problems).
    type: str
    choices: [problems, all]
seealso:
  - plugin: patrolserver.monitoring.gate_passed
    plugin_type: test
"""

EXAMPLES = r"""
- name: Gate the hosts of this batch
  patrolserver.monitoring.gate:
    servers: "{{ ansible_play_batch }}"
    max_by_severity: {critical: 0, high: 2}
    max_age: 12h
  delegate_to: localhost
  become: false
  run_once: true

- name: Only new issues count, and accepted ones do not
  patrolserver.monitoring.gate:
    servers: ["*.shop.example.org"]
    max_by_severity: {medium: 0}
    baseline_file: /var/lib/deploy/shop.baseline.json
    baseline_mode: create
    waivers:
      - server: "*.shop.example.org"
        software: php
        kind: outdated
        until: "2027-01-31"
        reason: replaced in the first quarter
    report_file: /var/lib/deploy/shop.gate.xml

- name: Give new high issues a week, and do not stop for what nobody can fix
  patrolserver.monitoring.gate:
    servers: "{{ ansible_play_batch }}"
    max_by_severity: {high: 0}
    grace: {high: 7d}
    fixable_only: true

- name: Look, but do not stop
  patrolserver.monitoring.gate:
    servers: ["*"]
    mode: report
  register: verdict

- name: Decide later
  ansible.builtin.debug:
    msg: "{{ 'go' if verdict is patrolserver.monitoring.gate_passed else verdict.msg }}"
"""

RETURN = r"""
msg:
  description:
    - The verdict, why it is so, and the worst servers with their worst software, in at most 20 lines, or O(max_listed).
    - A report or baseline that could not be written is told first.
  returned: always
  type: str
  sample: The gate passed for 3 servers.
verdict:
  description: V(pass), V(fail) or V(unknown).
  returned: always
  type: str
  sample: pass
passed:
  description: Whether the verdict is V(pass).
  returned: always
  type: bool
  sample: true
judged_at:
  description: When the exporter judged; none if it did not.
  returned: always
  type: str
  sample: "2026-11-24T07:12:00Z"
policy:
  description: The name of the policy that the exporter judged by; none if it did not judge. V(builtin) is the one without configuration.
  returned: always
  type: str
  sample: production
reasons:
  description:
    - Why the gate did not pass, and what is only worth knowing, which is not C(blocking).
    - The codes are those of the exporter's gate, such as C(limit_exceeded), C(data_too_old) or C(unknown_server), and of the module itself,
      C(unreachable), C(refused), C(unreadable), C(wait_timeout), C(invalid_input), C(error), C(report) and C(baseline).
  returned: always
  type: list
  elements: dict
  sample:
    - code: limit_exceeded
      message: "Open issues that are critical: 1, and max_by_severity.critical allows 0: php on web1.example.org (critical, risk 9.8); fix them."
      blocking: true
      server: null
      server_id: null
      account: null
reasons_not_listed:
  description: How many reasons RV(reasons) leaves out.
  returned: always
  type: int
  sample: 0
counts:
  description: Open issues that count, by severity and by kind, over all servers; none while nobody knows what there is to count.
  returned: always
  type: dict
  sample:
    critical: 0
    high: 0
    medium: 1
    low: 0
    total: 1
    waived: 2
    baseline: 0
    unfixable: 0
    by_kind: {unsupported: 0, outdated: 1, exploitable: 0, reported: 0}
servers_by_verdict:
  description: How many servers were judged, by verdict, whether RV(servers) lists them or not.
  returned: always
  type: dict
  sample: {pass: 1, fail: 0, unknown: 0}
servers_not_listed:
  description: How many servers RV(servers) leaves out.
  returned: always
  type: int
  sample: 0
servers:
  description: The servers with a verdict, counts (none while nobody knows them), ages of data and scan, and reasons of each.
  returned: always
  type: list
  elements: dict
  sample:
    - account: main
      id: 12
      name: web1.example.org
      verdict: pass
      data_age_seconds: 312.5
      scan_age_seconds: 4000.0
      counts:
        critical: 0
        high: 0
        medium: 1
        low: 0
        total: 1
        waived: 2
        baseline: 0
        unfixable: 0
        by_kind: {unsupported: 0, outdated: 1, exploitable: 0, reported: 0}
      reasons: []
violations:
  description: The limits that are broken, with the issues that break them.
  returned: always
  type: list
  elements: dict
  sample: []
issues_not_listed:
  description: How many issues over a limit RV(violations) leaves out, each once; C(found) of a limit counts them, too.
  returned: always
  type: int
  sample: 0
waived:
  description: The issues that a waiver covers.
  returned: always
  type: list
  elements: dict
  sample: []
waived_not_listed:
  description: How many issues RV(waived) leaves out.
  returned: always
  type: int
  sample: 0
expired_waivers:
  description: Waivers whose last day is over.
  returned: always
  type: list
  elements: dict
  sample: []
expired_waivers_not_listed:
  description: How many waivers RV(expired_waivers) leaves out.
  returned: always
  type: int
  sample: 0
unused_waivers:
  description: Waivers that cover no issue.
  returned: always
  type: list
  elements: dict
  sample: []
unused_waivers_not_listed:
  description: How many waivers RV(unused_waivers) leaves out.
  returned: always
  type: int
  sample: 0
expiring_waivers:
  description: Waivers that cover an open issue and end within 14 days.
  returned: always
  type: list
  elements: dict
  sample: []
expiring_waivers_not_listed:
  description: How many waivers RV(expiring_waivers) leaves out.
  returned: always
  type: int
  sample: 0
data_age_seconds:
  description: The age of the oldest data; none if it is not known.
  returned: always
  type: float
  sample: 312.5
baseline:
  description: The baseline that was used, none without O(baseline_file).
  returned: always
  type: dict
  sample: {file: /var/lib/deploy/shop.baseline.json, count: 7, written: false}
report_file:
  description: The report that was written, or would be in check mode; none without O(report_file).
  returned: always
  type: str
  sample: /var/lib/deploy/shop.gate.xml
refreshed:
  description: How many servers the exporter was asked to poll.
  returned: always
  type: int
  sample: 0
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils import judging, messages, reports
from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import (
    EXPORTER_RULES,
    exporter_options,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.gating import Gate
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import hide_secrets
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import OPTIONS


def argument_spec() -> dict:
    """Return the module's options."""
    return {
        **exporter_options(),
        "servers": {"type": "list", "elements": "str", "required": True},
        "account": {"type": "str"},
        **OPTIONS,
        "waivers_file": {"type": "path"},
        "baseline_file": {"type": "path"},
        "baseline_mode": {"type": "str", "choices": ["use", "create", "ratchet"], "default": "use"},
        "refresh": {"type": "bool", "default": False},
        "wait_for_scan": {"type": "bool", "default": False},
        "scanned_after": {"type": "str"},
        "wait_timeout": {"type": "str", "default": "5m"},
        "poll_interval": {"type": "str", "default": "2s"},
        "mode": {"type": "str", "choices": ["enforce", "warn", "report"], "default": "enforce"},
        "on_unknown": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
        "report_file": {"type": "path"},
        "report_format": {"type": "str", "choices": reports.FORMATS},
        "detail": {"type": "str", "choices": ["problems", "all"]},
        "max_listed": {"type": "int"},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, **EXPORTER_RULES)
    hide_secrets(module)
    gate = Gate(module.params, dry=module.check_mode, diff=module._diff)
    gate.run()
    result = gate.result
    listed = max(module.params["max_listed"] or messages.LISTED, 1)
    result["msg"] = messages.summary(result, listed)
    mode, on_unknown = module.params["mode"], module.params["on_unknown"]
    if gate.misconfigured or judging.blocks(result["verdict"], mode, on_unknown):
        module.fail_json(**failed(result, module.params))
    if judging.warns(result["verdict"], mode, on_unknown):
        module.warn(result["msg"])
    for warning in messages.of_expired(result, listed):
        module.warn(warning)
    module.exit_json(**result)


def failed(result: dict, params: dict) -> dict:
    """Return what a failed task returns, which Ansible prints in one piece: short, unless the task asks for more."""
    if params["max_listed"] is not None:
        return messages.shortened(result, max(params["max_listed"], 1))
    return messages.compact(result) if params["detail"] is None else result


if __name__ == "__main__":
    main()
