# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of what talks to PatrolServer itself."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared words of the C(api) action group."""

    DOCUMENTATION = r"""
options:
  api_url:
    description: Where PatrolServer's API listens.
    type: str
    default: https://api.patrolserver.com
  api_key:
    description:
      - The key of the account.
      - It travels in the URL, because PatrolServer wants it there; no message shows it, neither raw nor encoded.
    type: str
    required: true
  api_secret:
    description: The secret that belongs to O(api_key).
    type: str
    required: true
notes:
  - What the task does not set of its connection is taken from variables, C(patrolserver_api_url), C(patrolserver_key), C(patrolserver_secret), and for the
    others C(patrolserver_api_) and the option's name, like C(patrolserver_api_proxy_url). What these do not set either is taken from the
    environment where the task runs, under the same names in capitals, like E(PATROLSERVER_SECRET).
"""

    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description: Takes its connection from C(module_defaults) of the action group.
    support: full
    membership:
      - patrolserver.monitoring.api
"""
