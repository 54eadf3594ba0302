# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The baseline of a gate: the issues that were there before, so that only new ones count."""

from __future__ import annotations

import json

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

KEPT = ("fingerprint", "account", "server", "canonical_name", "kind", "severity")


def fingerprints(text: str, source: str) -> list:
    """Return the fingerprints of a baseline file.

    :raises InvalidInput: for anything that is no such file; a broken baseline is never an empty one.
    """
    try:
        document = json.loads(text)
    except ValueError:
        raise InvalidInput("{0}: the baseline is no JSON".format(source)) from None
    issues = document.get("issues") if isinstance(document, dict) else None
    if not isinstance(issues, list) or document.get("version") != 1:
        raise InvalidInput("{0}: this is no baseline of version 1".format(source))
    found = [issue.get("fingerprint") if isinstance(issue, dict) else None for issue in issues]
    if not all(isinstance(fingerprint, str) and fingerprint for fingerprint in found):
        raise InvalidInput("{0}: an issue of the baseline has no fingerprint".format(source))
    return sorted(set(found))


def document(issues: list) -> str:
    """Return the text of a baseline file. Equal issues make equal texts."""
    kept = {issue["fingerprint"]: {name: issue.get(name) for name in KEPT} for issue in issues}
    ordered = [kept[fingerprint] for fingerprint in sorted(kept)]
    return json.dumps({"version": 1, "issues": ordered}, indent=2, sort_keys=True) + "\n"
