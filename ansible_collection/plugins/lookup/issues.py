# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Issues of servers, where a playbook needs them in an expression."""

from __future__ import annotations

DOCUMENTATION = r"""
name: issues
short_description: Read the issues of servers from the exporter
version_added: 0.1.0
description:
  - Returns the issues of the servers that the terms name, with all filters of the exporter's API.
  - A name or an id that no server has is an error, unless O(state) asks for what is fixed; a glob may match none.
  - An exporter that cannot be reached is an error, never an empty list, unless the lookup is told to ignore errors.
author:
  - The patrolserver-exporter founders (!UNKNOWN)
extends_documentation_fragment:
  - patrolserver.monitoring.exporter.plugin
options:
  _terms:
    description: Ids, names, or globs on names. Without a term, all servers.
    type: list
    elements: str
  account:
    description: Names of accounts.
    type: list
    elements: str
    default: []
  severity:
    description: Severities of issues.
    type: list
    elements: str
    choices: [critical, high, medium, low]
    default: []
  kind:
    description: Kinds of issues.
    type: list
    elements: str
    choices: [unsupported, outdated, exploitable, reported]
    default: []
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
seealso:
  - module: patrolserver.monitoring.issues_info
notes:
  - Options that are given in the call win over variables, these over the environment, and this over C(ansible.cfg).
"""

EXAMPLES = r"""
- name: Name the software that is to be updated on this host
  ansible.builtin.debug:
    msg: "{{ query('patrolserver.monitoring.issues', inventory_hostname, kind=['outdated']) | map(attribute='software') | list }}"
"""

RETURN = r"""
_raw:
  description: The issues, as M(patrolserver.monitoring.issues_info) returns them, with their C(exploits) and C(severity_since).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.patrolserver.monitoring.plugins.module_utils.connection import EXPORTER_VARIABLES
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import PatrolServerError
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter
from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.connection import connection_of, variables_of

FILTERS = ("account", "severity", "kind", "software", "waived", "state")


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list, variables: dict | None = None, **kwargs: object) -> list:
        """Return the issues."""
        unknown = sorted(set(kwargs) - {*FILTERS, *EXPORTER_VARIABLES})
        if unknown:
            raise AnsibleLookupError(
                "patrolserver.monitoring.issues: it does not know {0}; it takes {1}".format(
                    ", ".join(unknown), ", ".join([*FILTERS, *EXPORTER_VARIABLES])
                )
            )
        self.set_options(var_options=variables_of(self._templar, variables or {}), direct=kwargs)
        selection = {name: self.get_option(name) for name in FILTERS}
        selection["servers"] = [str(term) for term in terms]
        try:
            exporter = Exporter(connection_of(self))
            exporter.check_accounts(selection["account"])
            if selection["state"] == "open":
                exporter.check_named(selection)
            return list(exporter.issues(selection))
        except PatrolServerError as error:
            raise AnsibleLookupError("patrolserver.monitoring.issues: {0}".format(error)) from None
