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
    description: Where the exporter listens, without the path of its API.
    type: str
    default: http://127.0.0.1:10058
  token:
    description: An API token of the exporter. Reading may be open; a refresh always needs one with the scope C(refresh), or a user.
    type: str
  username:
    description: A user of the exporter's basic authentication. Excludes O(token).
    type: str
  password:
    description: The password of O(username).
    type: str
notes:
  - What the task does not set of its connection is taken from variables, C(patrolserver_exporter_url), C(patrolserver_exporter_token) and so on, which
    are C(patrolserver_exporter_) and the option's name. What these do not set either is taken from the environment where the task runs, under
    the same names in capitals, like E(PATROLSERVER_EXPORTER_TOKEN).
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
      - name: patrolserver_exporter_validate_certs
    env:
      - name: PATROLSERVER_VALIDATE_CERTS
      - name: PATROLSERVER_EXPORTER_VALIDATE_CERTS
    ini:
      - section: patrolserver
        key: validate_certs
  ca_file:
    description: A file with the CA certificates to trust, in PEM, instead of the system's.
    type: path
    vars:
      - name: patrolserver_ca_file
      - name: patrolserver_exporter_ca_file
    env:
      - name: PATROLSERVER_CA_FILE
      - name: PATROLSERVER_EXPORTER_CA_FILE
    ini:
      - section: patrolserver
        key: ca_file
  client_cert:
    description: A client certificate in PEM, for an exporter that asks for one.
    type: path
    vars:
      - name: patrolserver_client_cert
      - name: patrolserver_exporter_client_cert
    env:
      - name: PATROLSERVER_EXPORTER_CLIENT_CERT
    ini:
      - section: patrolserver
        key: client_cert
  client_key:
    description: The key of O(client_cert).
    type: path
    vars:
      - name: patrolserver_client_key
      - name: patrolserver_exporter_client_key
    env:
      - name: PATROLSERVER_EXPORTER_CLIENT_KEY
    ini:
      - section: patrolserver
        key: client_key
  use_proxy:
    description: Whether the proxies of the environment (C(http_proxy), C(https_proxy), C(no_proxy)) are used.
    type: bool
    default: true
    vars:
      - name: patrolserver_use_proxy
      - name: patrolserver_exporter_use_proxy
    env:
      - name: PATROLSERVER_EXPORTER_USE_PROXY
    ini:
      - section: patrolserver
        key: use_proxy
  proxy_url:
    description:
      - The proxy to use, whatever the environment says, like V(http://proxy.example.org:3128), with credentials if it asks for them.
      - It is spoken to in plain, also about an C(https) URL, whose traffic passes through it encrypted. So one with C(https://) is refused.
    type: str
    vars:
      - name: patrolserver_proxy_url
      - name: patrolserver_exporter_proxy_url
    env:
      - name: PATROLSERVER_EXPORTER_PROXY_URL
  timeout:
    description: >-
      Seconds within which a call has to be answered, all of it: the name is looked up, the answer read, and a read that failed tried again.
    type: float
    default: 30
    vars:
      - name: patrolserver_timeout
      - name: patrolserver_exporter_timeout
    env:
      - name: PATROLSERVER_TIMEOUT
      - name: PATROLSERVER_EXPORTER_TIMEOUT
    ini:
      - section: patrolserver
        key: timeout
  retries:
    description: How often a read that failed is tried again, with growing pauses. V(0) for never.
    type: int
    default: 2
    vars:
      - name: patrolserver_retries
      - name: patrolserver_exporter_retries
    env:
      - name: PATROLSERVER_EXPORTER_RETRIES
    ini:
      - section: patrolserver
        key: retries
notes:
  - The variables and the environment have the same names as those of the modules. Names without C(exporter_), like C(patrolserver_ca_file), are
    older ones of plugins, and still read.
"""
