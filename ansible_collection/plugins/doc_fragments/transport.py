# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of everything that talks HTTP."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared words on certificates, proxies, time-outs and retries."""

    DOCUMENTATION = r"""
options:
  validate_certs:
    description: Whether the certificate of an C(https) URL has to be trusted.
    type: bool
    default: true
  ca_file:
    description: A file with the CA certificates to trust, in PEM, instead of the system's.
    type: path
  client_cert:
    description: A client certificate in PEM, if the other side asks for one.
    type: path
  client_key:
    description: The key of O(client_cert).
    type: path
  use_proxy:
    description: Whether the proxies of the environment (C(http_proxy), C(https_proxy), C(no_proxy)) are used.
    type: bool
    default: true
  proxy_url:
    description:
      - The proxy to use, whatever the environment says, like V(http://proxy.example.org:3128), with credentials if it asks for them.
      - It is spoken to in plain, also about an C(https) URL, whose traffic passes through it encrypted. So one with C(https://) is refused.
    type: str
  timeout:
    description: >-
      Seconds within which a call has to be answered, all of it: the name is looked up, the answer read, and a read that failed tried again.
    type: float
    default: 30
  retries:
    description:
      - How often a read is tried again after a failed connection or a status 429, 502, 503 or 504.
      - The pauses grow, are spread at random, and honour C(Retry-After) up to 30 seconds.
      - What changes something is never sent twice. V(0) tries nothing again.
    type: int
    default: 2
"""
