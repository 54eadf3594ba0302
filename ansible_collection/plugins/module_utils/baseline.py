# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The baseline of a gate: the issues that were there before, as they were, so that only new and worse ones count."""

from __future__ import annotations

import json

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import KINDS, SEVERITIES

VERSION = 2
KEPT = ("fingerprint", "account", "server", "canonical_name", "kind", "severity", "risk")
KEPT_OF_EXPLOITS = ("id", "cve", "title", "risk")
WRITE_ANEW = (
    "write it anew: remove the file and run the gate once with baseline_mode: create, or run "
    "patrolserver-exporter gate SERVER --write-baseline=FILE"
)


def accepted(text: str, source: str) -> list:
    """Return the issues of a baseline file as they were accepted, sorted, each once.

    :raises InvalidInput: for anything that is no such file; a broken baseline is never an empty one.
    """
    try:
        document = json.loads(text)
    except ValueError:
        raise InvalidInput("{0}: the baseline is no JSON".format(source)) from None
    if isinstance(document, list) or (isinstance(document, dict) and document.get("version") == 1):
        raise InvalidInput(
            "{0}: this baseline does not tell how bad the issues were when they were accepted, so what got worse would "
            "pass; {1}".format(source, WRITE_ANEW)
        )
    issues = document.get("issues") if isinstance(document, dict) else None
    if not isinstance(issues, list) or document.get("version") != VERSION:
        raise InvalidInput("{0}: this is no baseline of version {1}; {2}".format(source, VERSION, WRITE_ANEW))
    for number, issue in enumerate(issues):
        if not _is_issue(issue):
            raise InvalidInput("{0}: issue {1} of the baseline is not whole; {2}".format(source, number + 1, WRITE_ANEW))
    return kept_of(issues)


def kept_of(issues: list) -> list:
    """Return what a baseline keeps of issues, sorted, each once.

    Exploits that a waiver covers are left out: they are accepted up to a date, and a baseline has none.
    """
    kept = {}
    for issue in issues:
        exploits = [
            {name: one.get(name) for name in KEPT_OF_EXPLOITS} for one in issue.get("exploits") or [] if not one.get("waived")
        ]
        kept[issue["fingerprint"]] = {**{name: issue.get(name) for name in KEPT}, "exploits": exploits}
    return [kept[fingerprint] for fingerprint in sorted(kept)]


def document(kept: list) -> str:
    """Return the text of a baseline file. Equal issues make equal texts."""
    return json.dumps({"version": VERSION, "issues": kept}, indent=2, sort_keys=True) + "\n"


def _is_issue(issue: object) -> bool:
    if not isinstance(issue, dict) or not isinstance(issue.get("fingerprint"), str) or not issue["fingerprint"]:
        return False
    exploits = issue.get("exploits") or []
    return (
        issue.get("kind") in KINDS
        and issue.get("severity") in SEVERITIES
        and _is_risk(issue.get("risk"))
        and isinstance(exploits, list)
        and all(isinstance(one, dict) and _is_risk(one.get("risk")) for one in exploits)
    )


def _is_risk(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
