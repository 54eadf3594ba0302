#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a scan at PatrolServer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scan
short_description: Start a scan at PatrolServer, and wait until it ran and finished
version_added: 0.1.0
description:
  - Starts a scan of one server.
  - With O(wait), waits until the scan was seen running and after that seen to run no more. An error, or silence, is never taken for the end.
  - If a scan runs already, none is started, and O(wait) waits for that one.
author:
  - The patrolserver-exporter founders (!UNKNOWN)
extends_documentation_fragment:
  - action_common_attributes
  - patrolserver.monitoring.api
  - patrolserver.monitoring.api.actiongroup
  - patrolserver.monitoring.transport
attributes:
  check_mode:
    support: full
    details: Looks the server up and tells whether a scan would be started. It does not wait.
  diff_mode:
    support: none
  platform:
    platforms: all
options:
  server:
    description: Id or name of the server.
    type: str
    required: true
  wait:
    description: Whether to wait for the end of the scan.
    type: bool
    default: false
  start_timeout:
    description: Within this time the scan has to be seen running. Seconds, or a duration like V(2m).
    type: str
    default: 2m
  wait_timeout:
    description: Within this time the whole scan has to end. Seconds, or a duration like V(30m).
    type: str
    default: 30m
  poll_interval:
    description: The pause between two looks. While the start is awaited, it is at most one second.
    type: str
    default: 5s
  max_errors:
    description: How many looks in a row may fail, retries included, before the task gives up.
    type: int
    default: 3
seealso:
  - module: patrolserver.monitoring.gate
    description: Its O(patrolserver.monitoring.gate#module:scanned_after) takes RV(requested_at).
"""

EXAMPLES = r"""
- name: Scan this host and wait for the end
  patrolserver.monitoring.scan:
    server: "{{ inventory_hostname }}"
    wait: true
    wait_timeout: 20m
  delegate_to: localhost
  become: false
  register: scanned
"""

RETURN = r"""
server:
  description: The server.
  returned: when it was found
  type: dict
  sample: {id: 12, name: web1.example.org, verified: true}
state:
  description: >
    How far the scan was seen: V(would_start) (check mode), V(requested), V(running), V(finished),
    or V(unknown) if nothing could be started or seen.
  returned: always
  type: str
  sample: finished
started:
  description: Whether this task started a scan.
  returned: always
  type: bool
  sample: true
finished:
  description: Whether the scan was seen running and then seen to run no more.
  returned: always
  type: bool
  sample: true
requested_at:
  description: When the scan was asked for, would be in check mode, or was found running. In UTC.
  returned: when it was, or would be
  type: str
  sample: "2026-11-24T07:12:00.250000Z"
running_at:
  description: When it was first seen running.
  returned: when it was
  type: str
  sample: "2026-11-24T07:12:01.250000Z"
finished_at:
  description: When it was first seen to run no more.
  returned: when it was
  type: str
  sample: "2026-11-24T07:15:01.250000Z"
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import API_RULES, api_options
from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import fail_on_trouble
from ansible_collections.patrolserver.monitoring.plugins.module_utils.patrolserver import Api
from ansible_collections.patrolserver.monitoring.plugins.module_utils.scanning import Bounds, Clock, Scan


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **api_options(),
            "server": {"type": "str", "required": True},
            "wait": {"type": "bool", "default": False},
            "start_timeout": {"type": "str", "default": "2m"},
            "wait_timeout": {"type": "str", "default": "30m"},
            "poll_interval": {"type": "str", "default": "5s"},
            "max_errors": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
        **API_RULES,
    )
    params = module.params
    result = {"changed": False, "state": "unknown", "started": False, "finished": False}
    with fail_on_trouble(module, result):
        if params["max_errors"] < 1:
            raise InvalidInput("max_errors: it has to be 1 or more, not {0}".format(params["max_errors"]))
        bounds = Bounds(
            start=seconds(params["start_timeout"], "start_timeout"),
            whole=seconds(params["wait_timeout"], "wait_timeout"),
            pause=seconds(params["poll_interval"], "poll_interval"),
            errors=params["max_errors"],
        )
        api = Api(params)
        server = api.find(params["server"])
        if server is None:
            raise InvalidInput("PatrolServer knows no server {0!r}".format(params["server"]))
        result["server"] = server
        scan = Scan(api, server["id"], bounds, Clock(), result)
        scan.begin(dry=module.check_mode)
        if params["wait"] and not module.check_mode:
            scan.follow()
        module.exit_json(**result)


if __name__ == "__main__":
    main()
