#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Polls of many servers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: refresh
short_description: Have the exporter poll many servers now
version_added: 0.2.0
description:
  - Asks the exporter to poll the servers at once, instead of when their turn comes, and waits until each was polled.
  - It is one request, however many servers there are. An exporter of an earlier version takes one for each server.
  - It costs the exporter a few calls of its budget for each server, so name no more of them than you need.
  - A name, an id or a glob that no server has fails before anything is asked for.
author:
  - The patrolserver-exporter founders (!UNKNOWN)
extends_documentation_fragment:
  - action_common_attributes
  - patrolserver.monitoring.exporter
  - patrolserver.monitoring.exporter.actiongroup
  - patrolserver.monitoring.transport
attributes:
  check_mode:
    support: full
    details: Tells which servers would be polled.
  diff_mode:
    support: none
  platform:
    platforms: all
options:
  servers:
    description: Ids, names, or globs on names. Each has to match a server.
    type: list
    elements: str
    required: true
  account:
    description: The account that the servers belong to, where names are not unique over accounts.
    type: str
  wait_timeout:
    description: Within this time all of them have to be polled. Seconds, or a duration like V(5m).
    type: str
    default: 5m
  poll_interval:
    description: The pause between two looks while waiting.
    type: str
    default: 2s
notes:
  - It needs a token with the scope C(refresh), or a user.
seealso:
  - module: patrolserver.monitoring.gate
    description: With its O(patrolserver.monitoring.gate#module:refresh) it does the same before it judges.
"""

EXAMPLES = r"""
- name: Have the hosts of this batch polled after their update
  patrolserver.monitoring.refresh:
    servers: "{{ ansible_play_batch }}"
  delegate_to: localhost
  become: false
  run_once: true
"""

RETURN = r"""
servers:
  description: The servers that were asked for, with how their poll ended. C(state) is V(done), V(failed), or V(would_start) in check mode.
  returned: always
  type: list
  elements: dict
  sample:
    - {account: main, id: 12, name: web1.example.org, state: done, error: null}
refreshed:
  description: How many servers were polled.
  returned: always
  type: int
  sample: 1
failed_servers:
  description: Names of the servers whose poll failed.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import EXPORTER_RULES, exporter_options
from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput, PatrolServerError
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter, unknown_servers
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import fail_on_trouble
from ansible_collections.patrolserver.monitoring.plugins.module_utils.waiting import Wait

SHOWN = 5


def refresh(params: dict, dry: bool, result: dict) -> None:
    """Poll the servers, and fill the result.

    :raises PatrolServerError: if one of them could not be polled.
    """
    if not params["servers"]:
        raise InvalidInput("servers: the list is empty")
    account = [params["account"]] if params["account"] is not None else []
    bound, pause = (seconds(params[name], name) for name in ("wait_timeout", "poll_interval"))
    exporter, selection = Exporter(params), {"servers": params["servers"], "account": account}
    if dry:
        exporter.check_accounts(account)
        unknown = exporter.unknown_of(selection)
        if unknown:
            raise InvalidInput(unknown_servers(unknown))
        pairs = [(server, {"state": "would_start"}) for server in exporter.servers(selection)]
    else:
        pairs = _polled(Wait(exporter, bound, pause), selection, result)
    result["changed"] = True
    result["servers"] = [
        {**{name: server.get(name) for name in ("account", "id", "name")}, "state": one["state"], "error": one.get("error")}
        for server, one in pairs
    ]
    failed = [one for one in result["servers"] if one["state"] == "failed"]
    result["failed_servers"] = [one["name"] for one in failed]
    result["refreshed"] = sum(one["state"] == "done" for one in result["servers"])
    if failed:
        told = "; ".join("{0}: {1}".format(one["name"], one["error"] or "no reason given") for one in failed[:SHOWN])
        raise PatrolServerError("{0} of {1} servers could not be polled: {2}".format(len(failed), len(pairs), told))


def _polled(wait: Wait, selection: dict, result: dict) -> list:
    try:
        return wait.refresh_each(selection)
    finally:
        # Some of them may be polled all the same.
        result["changed"] = wait.asked


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **exporter_options(),
            "servers": {"type": "list", "elements": "str", "required": True},
            "account": {"type": "str"},
            "wait_timeout": {"type": "str", "default": "5m"},
            "poll_interval": {"type": "str", "default": "2s"},
        },
        supports_check_mode=True,
        **EXPORTER_RULES,
    )
    result = {"changed": False, "servers": [], "refreshed": 0, "failed_servers": []}
    with fail_on_trouble(module, result):
        refresh(module.params, module.check_mode, result)
        module.exit_json(**result)


if __name__ == "__main__":
    main()
