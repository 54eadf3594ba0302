# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict of a gate as a table for a terminal."""

from __future__ import annotations

import textwrap

from ansible_collections.patrolserver.monitoring.plugins.module_utils.judging import is_blocking
from ansible_collections.patrolserver.monitoring.plugins.module_utils.messages import place, worst_servers
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import SEVERITIES
from ansible_collections.patrolserver.monitoring.plugins.module_utils.reports import sentence

HEAD = ["VERDICT", "SERVER", *(severity.upper() for severity in SEVERITIES), "WHY"]
LONGEST_NAME = 50
LONGEST_WHY = 90


def table(result: dict, rows: int) -> list:
    """Return the lines: the verdict, and a row for each of at most ``rows`` servers, the worst first."""
    servers = sorted(result.get("servers") or [], key=place)
    worst = {(issues[0].get("account"), issues[0].get("server_id")): issues[0] for _name, issues in worst_servers(result)}
    body = [_row(server, worst.get((server.get("account"), server.get("id")))) for server in servers[:rows]]
    lines = [_heading(result)]
    if body:
        widths = [max(len(row[column]) for row in [HEAD, *body]) for column in range(len(HEAD))]
        lines += [_formatted(row, widths) for row in [HEAD, *body]]
    more = len(servers) - len(body) + (result.get("servers_not_listed") or 0)
    if more and body:
        lines.append("and {0} more".format(more))
    if not body:
        # Nobody was judged: the reasons are all that there is.
        lines += [textwrap.shorten(one["message"], LONGEST_NAME + LONGEST_WHY) for one in _blocking(result)[:rows]]
    return lines


def _heading(result: dict) -> str:
    judged = result.get("servers_by_verdict") or {}
    told = ", ".join("{0} {1}".format(judged.get(name, 0), name) for name in ("pass", "fail", "unknown"))
    policy = result.get("policy")
    return "gate{0}: {1} ({2})".format(" by policy " + policy if policy else "", result["verdict"].upper(), told)


def _row(server: dict, issue: dict | None) -> list:
    counts = server.get("counts")
    why = [one["message"] for one in _blocking(server)]
    if issue is not None and server.get("verdict") != "unknown":
        why = [sentence(issue), *why]
    elif issue is not None:
        why.append(sentence(issue))
    name = str(server.get("name") or server.get("id") or "-")
    text = why[0] if why else ""
    # The table names the server already.
    text = text[len(name) + 2 :] if text.startswith(name + ": ") else text
    numbers = ["-" if counts is None else str(counts.get(severity, "-")) for severity in SEVERITIES]
    return [server.get("verdict") or "-", _cut(name, LONGEST_NAME), *numbers, _cut(text, LONGEST_WHY)]


def _blocking(holder: dict) -> list:
    return [one for one in holder.get("reasons") or [] if is_blocking(one)]


def _cut(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _formatted(row: list, widths: list) -> str:
    cells = [cell.rjust(width) if 2 <= column < 6 else cell.ljust(width) for column, (cell, width) in enumerate(zip(row, widths))]
    return "  ".join(cells).rstrip()
