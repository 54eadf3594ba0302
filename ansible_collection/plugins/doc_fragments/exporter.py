# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of what talks to the exporter."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared words of the C(exporter) action group."""

    DOCUMENTATION = r"""
options:
  exporter_url:
    description:
      - Where the exporter listens, without the path of its API.
      - If unset, the environment variable E(PATROLSERVER_EXPORTER_URL) is taken.
    type: str
    default: http://127.0.0.1:10058
  token:
    description:
      - An API token of the exporter. Reading may be open; a refresh always needs one with the scope C(refresh), or a user.
      - If unset, the environment variable E(PATROLSERVER_EXPORTER_TOKEN) is taken.
    type: str
  username:
    description: A user of the exporter's basic authentication. Excludes O(token).
    type: str
  password:
    description: The password of O(username).
    type: str
"""

    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description: Takes its connection from C(module_defaults) of the action group.
    support: full
    membership:
      - patrolserver.monitoring.exporter
"""

    PLUGIN = r"""
options:
  exporter_url:
    description: Where the exporter listens, without the path of its API.
    type: str
    default: http://127.0.0.1:10058
    vars:
      - name: patrolserver_exporter_url
    env:
      - name: PATROLSERVER_EXPORTER_URL
    ini:
      - section: patrolserver
        key: exporter_url
  token:
    description: An API token of the exporter.
    type: str
    vars:
      - name: patrolserver_exporter_token
    env:
      - name: PATROLSERVER_EXPORTER_TOKEN
  username:
    description: A user of the exporter's basic authentication. Excludes O(token).
    type: str
    vars:
      - name: patrolserver_exporter_username
    env:
      - name: PATROLSERVER_EXPORTER_USERNAME
    ini:
      - section: patrolserver
        key: username
  password:
    description: The password of O(username).
    type: str
    vars:
      - name: patrolserver_exporter_password
    env:
      - name: PATROLSERVER_EXPORTER_PASSWORD
  validate_certs:
    description: Whether the certificate of an C(https) URL has to be trusted.
    type: bool
    default: true
    vars:
      - name: patrolserver_validate_certs
    env:
      - name: PATROLSERVER_VALIDATE_CERTS
    ini:
      - section: patrolserver
        key: validate_certs
  ca_file:
    description: A file with the CA certificates to trust, in PEM.
    type: path
    vars:
      - name: patrolserver_ca_file
    env:
      - name: PATROLSERVER_CA_FILE
    ini:
      - section: patrolserver
        key: ca_file
  client_cert:
    description: A client certificate in PEM, for an exporter that asks for one.
    type: path
    vars:
      - name: patrolserver_client_cert
    ini:
      - section: patrolserver
        key: client_cert
  client_key:
    description: The key of O(client_cert).
    type: path
    vars:
      - name: patrolserver_client_key
    ini:
      - section: patrolserver
        key: client_key
  use_proxy:
    description: Whether proxies of the environment are used.
    type: bool
    default: true
    vars:
      - name: patrolserver_use_proxy
    ini:
      - section: patrolserver
        key: use_proxy
  proxy_url:
    description: The proxy to use, whatever the environment says.
    type: str
    vars:
      - name: patrolserver_proxy_url
    env:
      - name: PATROLSERVER_PROXY_URL
  timeout:
    description: Seconds to wait for an answer, each time.
    type: float
    default: 30
    vars:
      - name: patrolserver_timeout
    env:
      - name: PATROLSERVER_TIMEOUT
    ini:
      - section: patrolserver
        key: timeout
  retries:
    description: How often a read that failed is tried again, with growing pauses.
    type: int
    default: 2
    vars:
      - name: patrolserver_retries
    ini:
      - section: patrolserver
        key: retries
"""
