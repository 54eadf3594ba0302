# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporter's connection, from the options of a plugin on the controller."""

from __future__ import annotations

from ansible_collections.patrolserver.monitoring.plugins.module_utils.connection import EXPORTER_VARIABLES, HTTP_OPTIONS
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

# Names that plugins took before modules took variables, too.
OLDER_VARIABLES = tuple("patrolserver_" + option for option in HTTP_OPTIONS)


def variables_of(templar, variables: dict) -> dict:
    """Return the variables of the exporter's connection, rendered; those that are omitted are left out."""
    names = (*EXPORTER_VARIABLES.values(), *OLDER_VARIABLES)
    return rendered(templar, {name: variables[name] for name in names if name in variables})


def rendered(templar, values: dict) -> dict:
    """Return the values, rendered, without those that are omitted."""
    return templar.template(values) if values else {}


def connection_of(plugin, templated=None) -> dict:
    """Return the connection options of a plugin; ``templated`` renders the texts among them.

    :raises InvalidInput: if they exclude each other.
    """
    params = {name: plugin.get_option(name) for name in EXPORTER_VARIABLES}
    if templated is not None:
        params = {name: templated(value) if isinstance(value, str) else value for name, value in params.items()}
    if params["token"] and params["username"]:
        raise InvalidInput("token and username exclude each other")
    if bool(params["username"]) != bool(params["password"]):
        raise InvalidInput("username and password go together")
    return params
