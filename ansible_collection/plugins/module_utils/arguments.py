# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that modules share. Their words are in the doc fragments of the same names."""

from __future__ import annotations

from ansible.module_utils.basic import env_fallback

from ansible_collections.patrolserver.monitoring.plugins.module_utils.connection import (
    API_VARIABLES,
    EXPORTER_VARIABLES,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import KINDS, SEVERITIES


def _with_environment(options: dict, variables: dict) -> dict:
    return {
        name: {**option, "fallback": (env_fallback, [variables[name].upper()])} for name, option in options.items()
    }


def _http_options() -> dict:
    """How to reach the other side, whichever it is."""
    return {
        "validate_certs": {"type": "bool", "default": True},
        "ca_file": {"type": "path"},
        "client_cert": {"type": "path"},
        "client_key": {"type": "path", "no_log": False},
        "use_proxy": {"type": "bool", "default": True},
        "proxy_url": {"type": "str", "no_log": True},
        "timeout": {"type": "float", "default": 30},
        "retries": {"type": "int", "default": 2},
    }


def exporter_options() -> dict:
    """The connection to the exporter."""
    options = {
        "exporter_url": {"type": "str", "default": "http://127.0.0.1:10058"},
        "token": {"type": "str", "no_log": True},
        "username": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        **_http_options(),
    }
    return _with_environment(options, EXPORTER_VARIABLES)


def api_options() -> dict:
    """The connection to PatrolServer's own API."""
    options = {
        "api_url": {"type": "str", "default": "https://api.patrolserver.com"},
        "api_key": {"type": "str", "required": True, "no_log": True},
        "api_secret": {"type": "str", "required": True, "no_log": True},
        **_http_options(),
    }
    return _with_environment(options, API_VARIABLES)


EXPORTER_RULES = {
    "mutually_exclusive": [("token", "username")],
    "required_together": [("username", "password"), ("client_cert", "client_key")],
}
API_RULES = {"required_together": [("client_cert", "client_key")]}


def selection_options() -> dict:
    """Which servers, by account, name, and what is open on them."""
    return {
        "account": {"type": "list", "elements": "str", "default": []},
        "servers": {"type": "list", "elements": "str", "default": []},
        "severity": {"type": "list", "elements": "str", "choices": SEVERITIES, "default": []},
        "kind": {"type": "list", "elements": "str", "choices": KINDS, "default": []},
    }


def filters(params: dict, names: dict) -> list:
    """Return query pairs: ``names`` maps the API's parameters to options, which hold a list, one value or nothing."""
    pairs = []
    for parameter, option in names.items():
        value = params.get(option)
        if value is None:
            continue
        for item in value if isinstance(value, (list, tuple)) else [value]:
            pairs.append((parameter, str(item).lower() if isinstance(item, bool) else str(item)))
    return pairs
