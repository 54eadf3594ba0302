# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that choose servers."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared words on filters."""

    DOCUMENTATION = r"""
options:
  account:
    description: Names of accounts, as the exporter's configuration has them.
    type: list
    elements: str
    default: []
  servers:
    description: Ids, names, or globs on names.
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
"""
