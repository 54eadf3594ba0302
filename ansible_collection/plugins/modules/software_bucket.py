#!/usr/bin/python
# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A software list pushed to PatrolServer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: software_bucket
short_description: Push a list of installed software to PatrolServer
version_added: 0.1.0
description:
  - Pushes what is installed on a server, so that PatrolServer covers a host that it cannot look into.
  - The list is one of your own, or what M(ansible.builtin.package_facts) found.
  - A bucket ends after O(expire), so a list that is still right is pushed again to renew it. That is no change; see RV(renewed).
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
    details: Reads the bucket and tells whether it would change. Nothing is pushed, and nothing renewed.
  diff_mode:
    support: full
  platform:
    platforms: all
options:
  server:
    description: Id or name of the server.
    type: str
    required: true
  bucket:
    description: The bucket's key. Each client of PatrolServer has its own bucket; they add up.
    type: str
    default: ansible
  state:
    description: Whether the bucket holds this software, or is gone.
    type: str
    choices: [present, absent]
    default: present
  software:
    description: The installed software. With O(state=present), either this or O(package_facts) is needed.
    type: list
    elements: dict
    suboptions:
      name:
        description: Its name, as PatrolServer knows it.
        type: str
        required: true
      version:
        description: The installed version, unset if it is not known.
        type: str
      parent:
        description: The name of the software that this belongs to.
        type: str
      location:
        description: Where it is installed, V(/) for the system itself.
        type: str
  package_facts:
    description: The dictionary C(ansible_facts.packages) that M(ansible.builtin.package_facts) makes.
    type: dict
  allow_empty:
    description: Whether an empty list may be pushed. It says that nothing is installed, which is rarely true.
    type: bool
    default: false
  expire:
    description: How long the bucket lives without being renewed. Seconds, or a duration like V(7d).
    type: str
    default: 7d
  renew:
    description: Whether a list that has not changed is pushed again, so that it lives on.
    type: bool
    default: true
  silent:
    description: Ask PatrolServer not to notify anybody of what this push reveals.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Find what is installed
  ansible.builtin.package_facts:

- name: Push it
  patrolserver.monitoring.software_bucket:
    server: "{{ inventory_hostname }}"
    package_facts: "{{ ansible_facts.packages }}"
    expire: 3d
  delegate_to: localhost
  become: false

- name: Push a list of our own
  patrolserver.monitoring.software_bucket:
    server: web1.example.org
    bucket: shop
    software:
      - name: wordpress
        version: 6.4.1
        location: /var/www/shop
      - name: akismet
        version: "5.0"
        parent: wordpress
        location: /var/www/shop
"""

RETURN = r"""
server:
  description: The server.
  returned: when it was found
  type: dict
  sample: {id: 12, name: web1.example.org, verified: true}
count:
  description: How many lines the bucket holds after the task, or would hold.
  returned: always
  type: int
  sample: 412
renewed:
  description: Whether the same list was pushed again.
  returned: always
  type: bool
  sample: false
"""

import re

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import API_RULES, api_options
from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.outcome import fail_on_trouble
from ansible_collections.patrolserver.monitoring.plugins.module_utils.patrolserver import Api
from ansible_collections.patrolserver.monitoring.plugins.module_utils.software import (
    from_list,
    from_package_facts,
    ordered,
    readable,
)


def wanted_lines(params: dict) -> list | None:
    """Return the lines that the bucket should hold; nothing if it should be gone."""
    if params["state"] == "absent":
        return None
    if params["package_facts"] is not None:
        lines = from_package_facts(params["package_facts"])
    else:
        lines = from_list(params["software"] or [])
    if not lines and not params["allow_empty"]:
        raise InvalidInput("the list of software is empty; to push it all the same, set allow_empty")
    return lines


def text_of(lines: list) -> str:
    """Return the lines as Ansible shows a difference of: one text."""
    return "".join(line + "\n" for line in readable(lines))


def checked_bucket(key: str) -> str:
    """Return the key if it fits into a path."""
    if not re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", key):
        raise InvalidInput("the bucket's key may hold letters, digits, dots, dashes and underscores only")
    return key


def settle(api: Api, params: dict, server: dict, dry: bool) -> dict:
    """Compare, push or delete; returns the module's keys."""
    key = checked_bucket(params["bucket"])
    header = "{0} {1}".format(server["name"] or server["id"], key)
    after = wanted_lines(params)
    expire = int(seconds(params["expire"], "expire"))
    if expire < 1:
        raise InvalidInput("expire: it has to be a second or more")
    held = api.bucket(server["id"], key)
    before = None if held is None else ordered(held)
    changed = before != after
    renewed = not changed and after is not None and params["renew"] and not dry
    if after is None:
        if changed and not dry:
            api.delete_bucket(server["id"], key)
    elif (changed and not dry) or renewed:
        api.push_bucket(server["id"], key, after, expire, params["silent"])
    return {
        "changed": changed,
        "renewed": renewed,
        "count": len(after or []),
        "diff": {
            "before_header": header,
            "after_header": header,
            "before": text_of(before or []),
            "after": text_of(after or []),
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **api_options(),
            "server": {"type": "str", "required": True},
            "bucket": {"type": "str", "default": "ansible"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "software": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "version": {"type": "str"},
                    "parent": {"type": "str"},
                    "location": {"type": "str"},
                },
            },
            "package_facts": {"type": "dict"},
            "allow_empty": {"type": "bool", "default": False},
            "expire": {"type": "str", "default": "7d"},
            "renew": {"type": "bool", "default": True},
            "silent": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
        mutually_exclusive=[("software", "package_facts")],
        required_if=[("state", "present", ("software", "package_facts"), True)],
        **API_RULES,
    )
    result = {"changed": False, "renewed": False, "count": 0}
    with fail_on_trouble(module, result):
        api = Api(module.params)
        server = api.find(module.params["server"])
        if server is None:
            raise InvalidInput("PatrolServer knows no server {0!r}".format(module.params["server"]))
        result["server"] = server
        settled = settle(api, module.params, server, module.check_mode)
        if not module._diff:
            del settled["diff"]
        module.exit_json(**{**result, **settled})


if __name__ == "__main__":
    main()
