# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the exporter's verdict, or the lack of one, to what the gate module returns and whether it fails."""

from __future__ import annotations

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    ConnectionFailed,
    InvalidInput,
    PatrolServerError,
    Refused,
    TimedOut,
    Unreadable,
)

ALWAYS_LISTS = ("reasons", "servers", "violations", "waived", "expired_waivers", "unused_waivers")
SEVERITY_COUNTS = ("critical", "high", "medium", "low", "total", "waived")
KIND_COUNTS = ("unsupported", "outdated", "exploitable", "reported")
CODES = {
    ConnectionFailed: "unreachable",
    Refused: "refused",
    Unreadable: "unreadable",
    TimedOut: "wait_timeout",
    InvalidInput: "invalid_input",
}
SHOWN = 8


def nothing_known() -> dict:
    """Return all keys of a verdict, for a gate that could not be judged."""
    return {
        "verdict": "unknown",
        "passed": False,
        "judged_at": None,
        "counts": {**dict.fromkeys(SEVERITY_COUNTS, 0), "by_kind": dict.fromkeys(KIND_COUNTS, 0)},
        "data_age_seconds": None,
        **{name: [] for name in ALWAYS_LISTS},
    }


def known(answer: dict) -> dict:
    """Return the exporter's answer with all keys, whatever it left out."""
    verdict = nothing_known()
    for name, empty in verdict.items():
        value = answer.get(name)
        if name in ALWAYS_LISTS and not isinstance(value, list):
            continue
        if value is not None or empty is None:
            verdict[name] = value
    return verdict


def trouble(error: PatrolServerError) -> dict:
    """Return the verdict of a gate that met an error: unknown, with the reason."""
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), "error")
    return {**nothing_known(), "reasons": [reason(code, str(error))]}


def reason(code: str, message: str) -> dict:
    """Return a reason in the exporter's form."""
    return {"code": code, "message": message, "server": None, "server_id": None, "account": None}


def misconfigured(error: PatrolServerError) -> bool:
    """Tell whether the task itself is wrong, so that no mode lets it go on."""
    return isinstance(error, InvalidInput) or (isinstance(error, Refused) and error.status in (400, 422))


def blocks(verdict: str, mode: str, on_unknown: str) -> bool:
    """Tell whether the task fails."""
    if verdict == "pass":
        return False
    if mode == "enforce":
        return True
    return verdict != "fail" and on_unknown == "fail"


def warns(verdict: str, mode: str, on_unknown: str) -> bool:
    """Tell whether a task that goes on warns."""
    if verdict == "pass":
        return False
    return mode == "warn" or (verdict != "fail" and on_unknown == "warn")


def summary(verdict: dict) -> str:
    """Return the verdict in a sentence, with its first reasons."""
    if verdict["verdict"] == "pass":
        count = len(verdict["servers"])
        return "The gate passed for {0} server{1}.".format(count, "" if count == 1 else "s")
    messages = list(dict.fromkeys(item["message"].rstrip(".") for item in verdict["reasons"]))
    more = len(messages) - SHOWN
    told = "; ".join(messages[:SHOWN]) + ("; and {0} more".format(more) if more > 0 else "")
    word = "failed" if verdict["verdict"] == "fail" else "could not be judged"
    return "The gate {0}: {1}.".format(word, told or "no reason was given")
