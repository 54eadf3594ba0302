# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict of each gate as a table."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gate_table
type: notification
short_description: Print the verdict of each gate as a short table
version_added: 0.2.0
description:
  - Prints a table below each M(patrolserver.monitoring.gate), whether it passed or not, with the worst servers first.
  - It has to be enabled, with C(callbacks_enabled = patrolserver.monitoring.gate_table) in the section C(defaults) of C(ansible.cfg), or with the
    environment variable E(ANSIBLE_CALLBACKS_ENABLED).
author:
  - The patrolserver-exporter founders (!UNKNOWN)
requirements:
  - enabled in the configuration
options:
  rows:
    description: How many servers the table has at most.
    type: int
    default: 15
    env:
      - name: PATROLSERVER_GATE_TABLE_ROWS
    ini:
      - section: callback_gate_table
        key: rows
"""

from ansible.plugins.callback import CallbackBase

from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.gate_table import table

GATE = "patrolserver.monitoring.gate"
COLORS = {"pass": "green", "fail": "red", "unknown": "yellow"}


class CallbackModule(CallbackBase):
    """The callback."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "patrolserver.monitoring.gate_table"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result) -> None:
        """Print the verdict of a task that went on."""
        self._print(result)

    def v2_runner_on_failed(self, result, ignore_errors: bool = False) -> None:
        """Print the verdict of a task that failed."""
        self._print(result)

    def v2_runner_item_on_ok(self, result) -> None:
        """Print the verdict of an item of a loop."""
        self._print(result)

    def v2_runner_item_on_failed(self, result) -> None:
        """Print the verdict of an item of a loop that failed."""
        self._print(result)

    def _print(self, result) -> None:
        task, told = result.task, result.result
        if GATE not in (task.action, getattr(task, "resolved_action", None)) or "servers_by_verdict" not in told:
            return
        color = COLORS.get(told.get("verdict"))
        for line in table(told, self.get_option("rows")):
            self._display.display(line, color=color)
