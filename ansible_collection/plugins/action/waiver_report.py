# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of the module of the same name."""

from __future__ import annotations

from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.connected import ExporterAction


class ActionModule(ExporterAction):
    """Completes the connection with variables."""

    MODULE = "patrolserver.monitoring.waiver_report"
