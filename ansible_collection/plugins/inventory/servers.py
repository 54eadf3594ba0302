# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that PatrolServer watches, as an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: servers
short_description: Make an inventory of the servers that the exporter knows
version_added: 0.1.0
description:
  - Makes a host of each server, with its counts, states and the age of its data as variables.
  - Makes a group of each label that the exporter's C(accounts[].labels) gives a server, called after its name and its value, such as C(team_web).
    The labels are in the variable C(patrolserver_labels), too.
  - Each host has its name at PatrolServer in the variable C(patrolserver_server), whatever the host is called. All playbooks of this collection go by
    that variable. Hosts of other inventories that PatrolServer calls otherwise need it, too.
  - Its source is a file whose name ends in C(patrolserver.yml) or C(patrolserver.yaml).
  - An option that there is none of is an error, since a mistyped one would choose all servers.
  - An error is an error. An exporter that cannot be reached, refuses, or never had an answer of an account's API does not make an empty inventory.
author:
  - The patrolserver-exporter founders (!UNKNOWN)
extends_documentation_fragment:
  - patrolserver.monitoring.exporter.plugin
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks the file as this plugin's.
    type: str
    required: true
    choices: [patrolserver.monitoring.servers]
  account:
    description: Names of accounts.
    type: list
    elements: str
    default: []
  servers:
    description: Ids, names, or globs on names. A name or an id that no server has is an error.
    type: list
    elements: str
    default: []
  severity:
    description: Only servers on which an issue of one of these severities is open.
    type: list
    elements: str
    choices: [critical, high, medium, low]
    default: []
  kind:
    description: Only servers on which an issue of one of these kinds is open.
    type: list
    elements: str
    choices: [unsupported, outdated, exploitable, reported]
    default: []
  hostname:
    description:
      - What the hosts are called, V(name), V(id), or V(account_name) for the account, a dot and the name. See O(hostnames) for anything else.
      - Two servers of the same name are an error.
    type: str
    choices: [name, id, account_name]
    default: name
  hostnames:
    description:
      - What the hosts are called, if it is not for O(hostname) to say. Expressions over the host's variables, like V(patrolserver_name | split('.') |
        first), of which the first one that is not empty and can be evaluated gives the name.
      - A server for which none of them does, and two servers for which they give the same name, are errors.
    type: list
    elements: str
    default: []
  variable_prefix:
    description: What the variables' names start with. It does not hold for C(patrolserver_server).
    type: str
    default: patrolserver_
  max_age:
    description:
      - If set, an account whose last success is older is an error. Seconds, or a duration like V(24h).
      - What is cached and older is asked for anew.
    type: str
notes:
  - The texts of the connection may be templates, so that a token can come from a lookup.
"""

EXAMPLES = r"""
# servers.patrolserver.yml
plugin: patrolserver.monitoring.servers
exporter_url: https://exporter.example.org
token: "{{ lookup('ansible.builtin.env', 'EXPORTER_TOKEN') }}"
cache: true
strict: true
hostnames:
  - patrolserver_name | split('.') | first
compose:
  ansible_host: patrolserver_name
groups:
  vulnerable: patrolserver_issues is not none and patrolserver_issues.critical > 0
  unknown: patrolserver_issues is none
keyed_groups:
  - key: patrolserver_account
    prefix: account
"""

import difflib
import hashlib
import json
import time

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import moment, seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import PatrolServerError
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter
from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.connection import connection_of

SUFFIXES = ("patrolserver.yml", "patrolserver.yaml")
FILTERS = ("account", "servers", "severity", "kind")
# Which name a host has at PatrolServer, in every inventory and playbook.
NAME_VARIABLE = "patrolserver_server"


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The inventory."""

    NAME = "patrolserver.monitoring.servers"

    def verify_file(self, path: str) -> bool:
        """Tell whether the file is this plugin's, by its name."""
        return super().verify_file(path) and path.endswith(SUFFIXES)

    def parse(self, inventory, loader, path: str, cache: bool = True) -> None:
        """Read the servers, from the cache if it may be, and make hosts of them."""
        super().parse(inventory, loader, path, cache)
        given = self._read_config_data(path)
        try:
            self._check_options(given)
            servers = self._cached(path, cache)
            variables = [self._variables(server) for server in servers]
            names = self._names(servers, variables)
        except PatrolServerError as error:
            raise AnsibleParserError("patrolserver.monitoring.servers: {0}".format(error)) from None
        for name, values in zip(names, variables):
            self._add(name, values)

    def _check_options(self, given: dict) -> None:
        """Refuse an option that there is none of: Ansible ignores it, and a filter that is mistyped chooses every server."""
        known = sorted(self.option_definitions)
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                cure = "did you mean {0}?".format(near[0]) if near else "there are {0}".format(", ".join(known))
                raise PatrolServerError("there is no option {0!r}; {1}".format(str(name), cure))

    def _cached(self, path: str, cache: bool) -> list:
        connection = connection_of(self, self._rendered)
        use = cache and self.get_option("cache")
        key = self.get_cache_key(path) + self._digest(connection)
        if use:
            held = self._held(key)
            if held is not None:
                return held
        found = self._ask(connection)
        if self.get_option("cache"):
            self._cache[key] = found
        return found["servers"]

    def _held(self, key: str) -> list | None:
        """Return the cached servers; nothing if there are none, or if what they rest on is older than is allowed by now."""
        try:
            held = self._cache[key]
        except KeyError:
            return None
        # Older versions kept the servers alone, of which nobody knows how old they are.
        if not isinstance(held, dict) or not isinstance(held.get("accounts"), list):
            return None
        try:
            self._check(held["accounts"])
        except PatrolServerError:
            return None
        return held["servers"]

    def _digest(self, connection: dict) -> str:
        """Return what tells this source's question apart from that of another, or of this one before it was edited."""
        question = [connection["exporter_url"], [self.get_option(name) for name in FILTERS]]
        return hashlib.sha256(json.dumps(question).encode("utf-8")).hexdigest()[:12]

    def _rendered(self, text: str) -> str:
        return self.templar.template(text) if self.templar.is_template(text) else text

    def _ask(self, connection: dict) -> dict:
        exporter = Exporter(connection)
        accounts = exporter.status()["accounts"]
        self._check(accounts)
        selection = {name: self.get_option(name) for name in FILTERS}
        exporter.check_named(selection)
        return {
            "servers": list(exporter.servers(selection)),
            "accounts": [{name: account.get(name) for name in ("name", "last_success_at")} for account in accounts],
        }

    def _check(self, accounts: list) -> None:
        """Refuse to make an inventory of accounts that nothing, or nothing of late, is known of."""
        wanted = self.get_option("account")
        max_age = self.get_option("max_age")
        missing = set(wanted) - {account["name"] for account in accounts}
        if missing:
            raise PatrolServerError("the exporter has no account {0}".format(", ".join(sorted(missing))))
        for account in accounts:
            if wanted and account["name"] not in wanted:
                continue
            last = account.get("last_success_at")
            if last is None:
                raise PatrolServerError("the exporter has no list of servers yet of account {0}".format(account["name"]))
            if max_age is not None and time.time() - moment(last) > seconds(max_age, "max_age"):
                raise PatrolServerError("the last list of servers of account {0} is of {1}".format(account["name"], last))

    def _variables(self, server: dict) -> dict:
        prefix = self.get_option("variable_prefix")
        return {**{prefix + key: value for key, value in server.items()}, NAME_VARIABLE: server["name"]}

    def _names(self, servers: list, variables: list) -> list:
        if self.get_option("hostnames"):
            names = [self._name(values) for values in variables]
            cure = "let hostnames give each a name of its own"
        else:
            made = {
                "name": lambda server: server["name"],
                "id": lambda server: str(server["id"]),
                "account_name": lambda server: "{0}.{1}".format(server["account"], server["name"]),
            }[self.get_option("hostname")]
            names = [made(server) for server in servers]
            cure = "set hostname to account_name or id, or use hostnames"
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise PatrolServerError("several servers are called {0}; {1}".format(", ".join(twice[:5]), cure))
        if "" in names:
            raise PatrolServerError("a server has no name; set hostname to id")
        return names

    def _name(self, values: dict) -> str:
        for expression in self.get_option("hostnames"):
            try:
                name = self._compose(expression, values)
            except AnsibleError:
                continue
            if name is not None and str(name):
                return str(name)
        raise PatrolServerError("hostnames give no name to server {0}".format(values[NAME_VARIABLE]))

    def _add(self, name: str, values: dict) -> None:
        self.inventory.add_host(name)
        for key, value in values.items():
            self.inventory.set_variable(name, key, value)
        self._add_to_groups_of_labels(name, values.get(self.get_option("variable_prefix") + "labels") or {})
        variables = self.inventory.get_host(name).get_vars()
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        variables = self.inventory.get_host(name).get_vars()
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)

    def _add_to_groups_of_labels(self, name: str, labels: dict) -> None:
        """Put a host into the groups of its labels; an exporter of an earlier version has none."""
        for label, value in sorted(labels.items()):
            group = self.inventory.add_group(self._sanitize_group_name("{0}_{1}".format(label, value)))
            self.inventory.add_child(group, name)
