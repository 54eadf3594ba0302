# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which waivers cover what, from what the exporter says of open issues and of a gate's waivers."""

from __future__ import annotations

import datetime as dt
import json

from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter, server_reference
from ansible_collections.patrolserver.monitoring.plugins.module_utils.files import read_text
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import (
    WAIVER_OPTIONS,
    waivers_of,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.reports import waivers_on

STATES = ("expired", "expiring", "unused", "active")


def nothing() -> dict:
    """Return the keys of a report that was not made."""
    return {"waivers": [], "counts": dict.fromkeys(STATES, 0), "issues": [], "configuration_known": False, "unknown_servers": 0}


def report(params: dict, today: dt.date | None = None) -> dict:
    """Ask the exporter, and sort what it says by waiver.

    :raises InvalidInput: for waivers that cannot be meant, and servers that nobody knows.
    """
    if not params["servers"]:
        raise InvalidInput("servers: the list is empty")
    within = seconds(params["expiring_within"], "expiring_within") / 86400
    file = params["waivers_file"]
    own = waivers_of(params["waivers"], read_text("waivers_file", file) if file else None, file or "")
    account = [params["account"]] if params["account"] is not None else []
    exporter = Exporter(params)
    exporter.check_accounts(account)
    policy = {name: value for name, value in (("policy", params["policy"]), ("waivers", own)) if value}
    answer = exporter.gate([server_reference(name) for name in params["servers"]], params["account"], policy, "all")
    _check_known(answer)
    selection = {"servers": params["servers"], "account": account, "state": "open"}
    covered = {issue["fingerprint"]: issue for issue in exporter.issues(selection) if _is_covered(issue)}
    covered.update({issue["fingerprint"]: issue for issue in answer.get("waived") or []})
    today = today or dt.datetime.now(dt.timezone.utc).date()
    rows = _rows(list(covered.values()), today, within)
    configured = exporter.waivers()
    for state, found in _idle(answer, configured).items():
        rows += [_of_waiver(state, waiver, today) for waiver in found]
    rows.sort(key=lambda row: (STATES.index(row["state"]), row["until"] or "", row["reason"] or ""))
    return {
        "waivers": rows,
        "counts": {state: sum(row["state"] == state for row in rows) for state in STATES},
        "issues": list(covered.values()),
        "configuration_known": configured is not None,
        "unknown_servers": _unknown_servers(answer, configured),
    }


def summary(result: dict) -> str:
    """Return the counts in a sentence."""
    told = ", ".join("{0} {1}".format(result["counts"][state], state) for state in reversed(STATES))
    text = "Waivers: {0}; they cover {1} issues.".format(told, len(result["issues"]))
    if not result["configuration_known"]:
        text += " Which of the configuration are unused is not known: the exporter is of an earlier version."
    if result["unknown_servers"]:
        text += " What they cover on {0} servers is not known for sure.".format(result["unknown_servers"])
    return text


def as_json(result: dict) -> str:
    """Return the report for programs."""
    return json.dumps({name: result[name] for name in nothing()}, indent=2, sort_keys=True) + "\n"


def markdown(result: dict) -> str:
    """Return the report for people."""
    lines = ["# Waivers", "", summary(result), ""]
    lines += ["| state | until | days left | issues | servers | software | reason |", "| --- " * 7 + "|"]
    for row in result["waivers"]:
        cells = (
            row["state"],
            row["until"],
            row["days_left"],
            row["issues"],
            ", ".join(row["servers"]),
            ", ".join(row["software"]),
            row["reason"],
        )
        lines.append("| {0} |".format(" | ".join(_cell(cell) for cell in cells)))
    return "\n".join(lines) + "\n"


def _check_known(answer: dict) -> None:
    unknown = [one for one in answer.get("reasons") or [] if one.get("code") in ("unknown_server", "ambiguous_server")]
    if unknown:
        raise InvalidInput("servers: {0}".format("; ".join(one["message"] for one in unknown)))


def _idle(answer: dict, configured: dict | None) -> dict:
    """Return the waivers that are over, and those that hold and cover nothing; each once, of the task and of the configuration."""
    found = {state: list(answer.get(state + "_waivers") or []) for state in ("expired", "unused")}
    for waiver in (configured or {}).get("items", ()):
        if waiver.get("expired"):
            found["expired"].append(waiver)
        elif waiver["issues"] == 0:
            found["unused"].append(waiver)
    return {state: list({_identity(one): one for one in waivers}.values()) for state, waivers in found.items()}


def _identity(waiver: dict) -> tuple:
    return tuple(waiver.get(name) for name in WAIVER_OPTIONS)


def _unknown_servers(answer: dict, configured: dict | None) -> int:
    """Return of how many servers nobody can vouch for what is open on them."""
    if configured is not None and isinstance(configured.get("coverage"), dict):
        return configured["coverage"].get("unknown") or 0
    return sum(one.get("counts") is None for one in answer.get("servers") or [])


def _is_covered(issue: dict) -> bool:
    return bool(issue.get("waived") or any(one.get("waived") for one in issue.get("exploits") or []))


def _rows(issues: list, today: dt.date, within: float) -> list:
    """Return a row for each reason and date: that is what the exporter tells of the waiver on an issue."""
    found = {}
    for issue in issues:
        for waiver in waivers_on(issue):
            found.setdefault((waiver.get("until"), waiver.get("reason")), []).append(issue)
    rows = []
    for (until, reason), covered in found.items():
        left = _days_left(until, today)
        rows.append(
            {
                "state": "expiring" if left is not None and left <= within else "active",
                "until": until,
                "reason": reason,
                "days_left": left,
                "issues": len(covered),
                "servers": sorted({issue["server"] for issue in covered}),
                "software": sorted({issue["canonical_name"] for issue in covered if issue.get("canonical_name")}),
            }
        )
    return rows


def _of_waiver(state: str, waiver: dict, today: dt.date) -> dict:
    """Return the row of a waiver that covers nothing; its globs stand for what it is meant for."""
    return {
        "state": state,
        "until": waiver.get("until"),
        "reason": waiver.get("reason"),
        "days_left": _days_left(waiver.get("until"), today),
        "issues": 0,
        "servers": [waiver.get("server")],
        "software": [waiver.get("software")],
    }


def _days_left(until: str | None, today: dt.date) -> int | None:
    return None if until is None else (dt.date.fromisoformat(until) - today).days


def _cell(value: object) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text.replace("|", "\\|")
