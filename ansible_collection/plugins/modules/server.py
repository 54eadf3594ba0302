#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server at PatrolServer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server
short_description: Add, verify and remove servers at PatrolServer
version_added: 0.1.0
description:
  - Makes a server present, verified or absent in the account.
  - The name is compared without regard to case and to a dot at its end.
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
    details: Reads the account's servers and tells what would change. Whether PatrolServer would accept a verification cannot be known before.
  diff_mode:
    support: full
  platform:
    platforms: all
options:
  name:
    description: The domain or host name of the server. With O(state=absent), an id will do too.
    type: str
    required: true
    aliases: [domain]
  state:
    description:
      - V(present) adds the server if it is missing.
      - V(verified) adds it if it is missing, and proves its ownership if that was not done.
      - V(absent) removes it.
    type: str
    choices: [present, verified, absent]
    default: present
  verification_token:
    description:
      - The token that proves the ownership. If unset, one is requested from PatrolServer when it is needed.
    type: str
"""

EXAMPLES = r"""
- name: Have PatrolServer look after this host
  patrolserver.monitoring.server:
    name: "{{ inventory_hostname }}"
    state: verified
  delegate_to: localhost
  become: false

- name: Remove a host that is gone
  patrolserver.monitoring.server:
    name: old.example.org
    state: absent
"""

RETURN = r"""
server:
  description: The server as it is after the task, or would be; none if it is absent.
  returned: always
  type: dict
  sample: {id: 12, name: web1.example.org, verified: true}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import API_RULES, api_options
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import Unreadable
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import fail_on_trouble
from ansible_collections.patrolserver.monitoring.plugins.module_utils.patrolserver import Api, host_name


def wanted(name: str, state: str, before: dict | None) -> dict | None:
    """Return the server as it should be; nothing means absent, an id that nobody knows yet is none."""
    if state == "absent":
        return None
    after = dict(before) if before else {"id": None, "name": name, "verified": False}
    if state == "verified":
        after["verified"] = True
    return after


def apply(api: Api, params: dict, before: dict | None, after: dict | None) -> dict | None:
    """Bring the server to its wanted state, and return what PatrolServer says it is then."""
    if after is None:
        api.delete(before["id"])
        return None
    server = before or api.create(params["name"])
    if params["state"] == "verified" and not server["verified"]:
        token = params["verification_token"] or api.verification_token(server["name"] or params["name"])
        api.verify(server["id"], token)
    server = api.server(server["id"])
    if params["state"] == "verified" and not server["verified"]:
        raise Unreadable("PatrolServer took the verification, but still shows the server as not verified")
    return server


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **api_options(),
            "name": {"type": "str", "required": True, "aliases": ["domain"]},
            "state": {"type": "str", "choices": ["present", "verified", "absent"], "default": "present"},
            "verification_token": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
        **API_RULES,
    )
    result = {"changed": False, "server": None}
    with fail_on_trouble(module, result):
        params = {**module.params, "name": host_name(module.params["name"])}
        api = Api(params)
        before = api.find(params["name"])
        after = wanted(params["name"], params["state"], before)
        result.update(changed=before != after, server=before)
        if result["changed"] and not module.check_mode:
            after = apply(api, params, before, after)
        result["server"] = after
        if module._diff:
            name = params["name"]
            result["diff"] = {"before_header": name, "after_header": name, "before": before or {}, "after": after or {}}
        module.exit_json(**result)


if __name__ == "__main__":
    main()
