# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions of modules that connect: on the controller they complete the connection with variables, then the module runs."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible.utils.vars import merge_hash

from ansible_collections.patrolserver.monitoring.plugins.module_utils.connection import API_VARIABLES, EXPORTER_VARIABLES
from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.connection import rendered

# A task that names one of these wants no other from somewhere else.
CREDENTIALS = {"token", "username", "password"}


class ConnectedAction(ActionBase):
    """Runs ``MODULE``; ``VARIABLES`` names the variable of each option of its connection."""

    MODULE: str
    VARIABLES: dict
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        """Run the module with all that it needs to connect."""
        result = super().run(tmp, task_vars)
        wrap_async = self._task.async_val and not self._connection.has_native_async
        arguments = self._completed(dict(self._task.args), task_vars or {})
        done = self._execute_module(
            module_name=self.MODULE, module_args=arguments, task_vars=task_vars, wrap_async=wrap_async
        )
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return merge_hash(result, done)

    def _completed(self, arguments: dict, task_vars: dict) -> dict:
        given = {name for name, value in arguments.items() if value is not None}
        taken = {
            option: task_vars[variable]
            for option, variable in self.VARIABLES.items()
            if option not in given and variable in task_vars and not (option in CREDENTIALS and CREDENTIALS & given)
        }
        found = rendered(self._templar, taken)
        # What is null is not set, neither by the task nor by a variable.
        own = {name: value for name, value in arguments.items() if value is not None or name not in self.VARIABLES}
        return {**own, **{option: value for option, value in found.items() if value is not None}}


class ExporterAction(ConnectedAction):
    """The action of a module that asks the exporter."""

    VARIABLES = EXPORTER_VARIABLES


class ApiAction(ConnectedAction):
    """The action of a module that asks PatrolServer itself."""

    VARIABLES = API_VARIABLES
