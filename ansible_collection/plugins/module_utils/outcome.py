# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module ends when something went wrong: with its reason, its usual keys, and no traceback that could show a secret."""

from __future__ import annotations

import contextlib

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import PatrolServerError, Refused
from ansible_collections.patrolserver.monitoring.plugins.module_utils.redaction import secrets_of, spellings


def hide_secrets(module) -> None:
    """Have Ansible mask every spelling of the secrets; it knows the raw one only, and they travel encoded."""
    for secret in secrets_of(module.params):
        module.no_log_values.update(form for form in spellings(secret) if form)


@contextlib.contextmanager
def fail_on_trouble(module, keys: dict):
    """Turn a ``PatrolServerError`` inside into a failed task that returns ``keys`` too; ``keys`` may be filled inside."""
    hide_secrets(module)
    try:
        yield
    except PatrolServerError as error:
        module.fail_json(msg=str(error), **{**keys, **failure_details(error)})


def failure_details(error: PatrolServerError) -> dict:
    """Return what a program can tell failures apart by."""
    return {
        "error": type(error).__name__,
        "status": error.status if isinstance(error, Refused) else None,
    }
