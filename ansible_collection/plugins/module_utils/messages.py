# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read of a verdict: the worst first, and no more of it than fits on a screen, however large the fleet is."""

from __future__ import annotations

import json

from ansible_collections.patrolserver.monitoring.plugins.module_utils.judging import NOT_LISTED, is_blocking
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import SEVERITIES
from ansible_collections.patrolserver.monitoring.plugins.module_utils.reports import sentence, violating

LISTED = 20
# Characters of JSON that all lists of a failed task may have together, and each of them where that is not enough. An issue is
# longer than a server, and there should be the worst one of each server that is listed.
SCREEN, ROOM, ROOM_FOR_ISSUES = 6000, 1500, 2500
# What may be cut; "issues" are those of the violations.
CUT = tuple(name.replace("_not_listed", "") for name in NOT_LISTED)
# Lines that doubts get at least, where there are issues as well.
DOUBTS = 5
ISSUES_IN_A_LINE = 2
LONGEST_LINE = 300
ORDER = {"fail": 0, "unknown": 1, "pass": 2}
# What the module could not do itself; it comes before all that the exporter found.
OWN_FAILURES = ("report", "baseline")


def summary(verdict: dict, listed: int = LISTED) -> str:
    """Return the verdict in at most ``listed`` lines: the verdict itself, what broke it, and the worst servers with their software."""
    if verdict["verdict"] == "pass":
        return "The gate passed for {0}.".format(_counted(verdict["servers_by_verdict"]["pass"], "server"))
    word = "The gate failed" if verdict["verdict"] == "fail" else "The gate could not be judged"
    blocking = [one for one in verdict["reasons"] if is_blocking(one)]
    first = _messages(one for one in blocking if _is_own(one)) + _messages(
        one for one in blocking if not _is_own(one) and one.get("server") is None
    )
    doubts = _messages(one for one in blocking if not _is_own(one) and one.get("server") is not None)
    servers = server_lines(verdict)
    if len(first) + len(doubts) + len(servers) <= 1:
        return "{0}: {1}.".format(word, "".join(first + doubts + servers).rstrip(".") or "no reason was given")
    # The heading and the last line take a line each.
    room = max(listed - 2, 1)
    lines = first[:room]
    room -= len(lines)
    shown = servers[: max(room - min(len(doubts), DOUBTS), 0)]
    lines += shown + doubts[: room - len(shown)]
    more = len(first) + len(servers) + len(doubts) - len(lines) + verdict["reasons_not_listed"]
    tail = ["And {0} more lines; max_listed lists more here, and report_file all.".format(more)] if more else []
    return "\n".join([_heading(word, verdict), *lines, *tail])


def of_expired(verdict: dict, listed: int) -> list:
    """Return a warning for each waiver that is over, in at most ``listed`` of them."""
    told = ["the waiver for {software} on {server} ended on {until}".format(**one) for one in verdict["expired_waivers"]]
    if len(told) <= listed:
        return told
    return [*told[: listed - 1], "{0} more waivers have ended; expired_waivers lists them".format(len(told) - listed + 1)]


def server_lines(verdict: dict) -> list:
    """Return a line for each server with issues over a limit, the worst first, with its worst software."""
    return [_line(name, issues) for name, issues in worst_servers(verdict)]


def worst_servers(verdict: dict) -> list:
    """Return the servers with issues over a limit as pairs of name and issues, the worst of both first."""
    found = {}
    for issue in sorted(violating(verdict), key=_badness):
        found.setdefault((issue.get("account"), issue.get("server_id"), issue.get("server")), []).append(issue)
    return [(key[2], issues) for key, issues in sorted(found.items(), key=lambda item: _weight(item[1]))]


def shortened(verdict: dict, listed: int) -> dict:
    """Return the verdict with lists of at most ``listed`` entries. Of one that is longer the worst stay; the rest is counted."""
    return _cut_to(verdict, _worst_first(verdict), dict.fromkeys(CUT, listed))


def compact(verdict: dict) -> dict:
    """Return the verdict as a failed task prints it: short lists, and where even these would fill a screen, the very worst only."""
    ordered = _worst_first(verdict)
    if sum(len(json.dumps(entries[:LISTED])) for entries in ordered.values()) <= SCREEN:
        return _cut_to(verdict, ordered, dict.fromkeys(CUT, LISTED))
    return _cut_to(verdict, ordered, {name: _fitting(name, entries) for name, entries in ordered.items()})


def _worst_first(verdict: dict) -> dict:
    """Return the lists that may be cut, by the names under which the rest is counted."""
    servers = sorted(verdict["servers"], key=place)
    own_first = sorted(verdict["reasons"], key=lambda one: (not _is_own(one), not is_blocking(one)))
    return {
        **{name: verdict[name] for name in CUT if name in verdict},
        "reasons": own_first,
        "servers": servers,
        "issues": _in_turn(verdict, servers),
    }


def _fitting(name: str, entries: list) -> int:
    """Return how many of the first entries have room in a part of a screen; one at least."""
    room, count = ROOM_FOR_ISSUES if name == "issues" else ROOM, 0
    for entry in entries[:LISTED]:
        room -= len(json.dumps(entry))
        if room < 0:
            break
        count += 1
    return max(count, 1)


def _cut_to(verdict: dict, ordered: dict, listed: dict) -> dict:
    short = dict(verdict)
    for name, entries in ordered.items():
        more = len(entries) - listed[name]
        if more <= 0:
            continue
        short[name + "_not_listed"] += more
        if name == "issues":
            short["violations"] = _with_issues(verdict, {one["fingerprint"] for one in entries[: listed[name]]})
        else:
            short[name] = entries[: listed[name]]
    return short


def _with_issues(verdict: dict, kept: set) -> list:
    return [
        {**one, "issues": [issue for issue in sorted(one.get("issues") or [], key=_badness) if issue["fingerprint"] in kept]}
        for one in verdict["violations"]
    ]


def _in_turn(verdict: dict, servers: list) -> list:
    """Return the issues over a limit: of each server the worst one, the servers in their order, then of each the second one."""
    order = {(server.get("account"), server.get("id")): number for number, server in enumerate(servers)}
    found = {}
    for issue in sorted(violating(verdict), key=_badness):
        found.setdefault((issue.get("account"), issue.get("server_id")), []).append(issue)
    turns = [
        (turn, order.get(server, len(order)), number, issue)
        for number, (server, issues) in enumerate(found.items())
        for turn, issue in enumerate(issues)
    ]
    return [issue for _turn, _order, _number, issue in sorted(turns, key=lambda one: one[:3])]


def _messages(reasons: object) -> list:
    return list(dict.fromkeys(_cut(one["message"]) for one in reasons))


def _heading(word: str, verdict: dict) -> str:
    judged = verdict["servers_by_verdict"]
    every = sum(judged.values())
    if not every:
        return word + "."
    parts = [
        "{0} {1}".format(judged[name], told)
        for name, told in (("fail", "over a limit"), ("unknown", "not known well enough"), ("pass", "without a fault"))
        if judged[name]
    ]
    return "{0}; of {1} {2}.".format(word, _counted(every, "server"), ", ".join(parts))


def _line(server: str, issues: list) -> str:
    told = [sentence(issue) for issue in issues[:ISSUES_IN_A_LINE]]
    more = len(issues) - len(told)
    return _cut("{0}: {1}{2}".format(server, "; ".join(told), "; and {0} more".format(more) if more else ""))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"


def _counted(count: int, noun: str) -> str:
    return "{0} {1}{2}".format(count, noun, "" if count == 1 else "s")


def _is_own(reason: dict) -> bool:
    return reason.get("code") in OWN_FAILURES


def _badness(issue: dict) -> tuple:
    severity, risk = issue.get("severity"), issue.get("risk")
    if risk is None:
        # A risk that nobody knows may be the worst; what is no exploit has none.
        risk = 10.0 if issue.get("kind") == "exploitable" else 0.0
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES), -risk


def _weight(issues: list) -> tuple:
    return tuple(-sum(issue.get("severity") == severity for issue in issues) for severity in SEVERITIES)


def place(server: dict) -> tuple:
    """Return what sorts servers, the worst first."""
    counts = server.get("counts") or {}
    return ORDER.get(server.get("verdict"), 1), *(-(counts.get(severity) or 0) for severity in SEVERITIES)
