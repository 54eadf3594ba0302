# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the exporter's verdict, or the lack of one, to what the gate module returns and whether it fails."""

from __future__ import annotations

import fnmatch
from datetime import datetime

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    ConnectionFailed,
    InvalidInput,
    PatrolServerError,
    Refused,
    TimedOut,
    Unreadable,
)

ALWAYS_LISTS = ("reasons", "servers", "violations", "waived", "expired_waivers", "unused_waivers", "expiring_waivers")
NOT_LISTED = (
    "reasons_not_listed",
    "servers_not_listed",
    "issues_not_listed",
    "waived_not_listed",
    "expired_waivers_not_listed",
    "unused_waivers_not_listed",
    "expiring_waivers_not_listed",
)
# The module's own codes of reasons; the exporter has others.
CODES = {
    ConnectionFailed: "unreachable",
    Refused: "refused",
    Unreadable: "unreadable",
    TimedOut: "wait_timeout",
    InvalidInput: "invalid_input",
}


def nothing_known() -> dict:
    """Return all keys of a verdict, for a gate that could not be judged."""
    return {
        "verdict": "unknown",
        "passed": False,
        "judged_at": None,
        "policy": None,
        "counts": None,
        "servers_by_verdict": {"pass": 0, "fail": 0, "unknown": 0},
        "data_age_seconds": None,
        **{name: [] for name in ALWAYS_LISTS},
        **dict.fromkeys(NOT_LISTED, 0),
    }


# Seconds by which the clocks of the exporter and of this machine may differ; an older answer is a stored one.
STORED = 15 * 60


def contradiction(answer: dict, question: dict, asked_at: float | None = None) -> str | None:
    """Return what is wrong with an answer of the exporter, if it is none that a gate gives to the question.

    ``question`` is the body that was sent. A list may be short, or missing: only a server that is counted has passed.
    ``asked_at`` is when it was sent, in seconds since the epoch.
    """
    if answer.get("verdict") not in ("pass", "fail", "unknown"):
        return "its answer holds no verdict"
    if answer.get("passed") is not (answer["verdict"] == "pass"):
        return "its answer contradicts itself on whether the gate passed"
    if not answer["passed"]:
        return None
    return (
        _miscounted(answer)
        or _contradicted(answer)
        or _beside_the_question(answer, question)
        or _stored(answer.get("judged_at"), asked_at)
    )


def _stored(judged_at: object, asked_at: float | None) -> str | None:
    if judged_at is None or asked_at is None:
        return None
    try:
        # Python 3.10 and older do not know the Z.
        moment = datetime.fromisoformat(str(judged_at).replace("Z", "+00:00"))
        is_of_now = moment.tzinfo is not None and moment.timestamp() >= asked_at - STORED
    except (ValueError, OverflowError):
        is_of_now = False
    if is_of_now:
        return None
    return (
        "its answer is of {0}, and not of now: something between keeps answers, or the clock of the exporter or of this "
        "machine is wrong"
    ).format(str(judged_at)[:40])


def _miscounted(answer: dict) -> str | None:
    judged, servers = answer.get("servers_by_verdict"), answer.get("servers")
    counted = [judged.get(name) for name in ("pass", "fail", "unknown")] if isinstance(judged, dict) else []
    omitted = answer.get("servers_not_listed") or 0
    if not counted or not all(map(_is_count, [*counted, omitted])) or not isinstance(servers, list):
        return "its answer passes without the number of servers that do; is it an older version?"
    # A newer version may count servers under a verdict of its own, which is no pass.
    if counted[0] < 1 or any(judged[name] != 0 for name in judged if name != "pass"):
        return "its answer passes although not every server does, or none is counted"
    if omitted < 0 or counted[0] != len(servers) + omitted:
        return "its answer passes although it counts other servers than it lists"
    return None


def _contradicted(answer: dict) -> str | None:
    servers = answer["servers"]
    if not all(isinstance(server, dict) and server.get("verdict") == "pass" for server in servers):
        return "its answer passes although not every server does"
    if answer.get("violations") or answer.get("issues_not_listed"):
        return "its answer passes although it tells of issues over a limit"
    if any(_keeps_from_passing(one.get("reasons")) for one in (answer, *servers)):
        return "its answer passes although it gives a reason not to"
    return None


def _keeps_from_passing(reasons: object) -> bool:
    if reasons is None:
        return False
    return not isinstance(reasons, list) or any(not isinstance(one, dict) or is_blocking(one) for one in reasons)


def _beside_the_question(answer: dict, question: dict) -> str | None:
    servers, account = answer["servers"], question.get("account")
    policy = question.get("policy", {}).get("policy")
    if policy is not None and answer.get("policy") != policy:
        return "its answer passes by policy {0!r}, and {1!r} was asked for".format(answer.get("policy"), policy)
    if account is not None:
        others = [server.get("name") for server in servers if server.get("account") != account]
        if others:
            return "its answer passes for {0!r}, which it does not list in account {1!r}".format(others[0], account)
    strange = next((one for one in servers if not _fits_any(one, question["servers"])), None)
    if strange is not None:
        return "its answer passes for {0!r}, which was not asked for".format(str(strange.get("name")))
    # Without a list of all servers, any of those that are only counted may be the one.
    missing = [] if answer.get("servers_not_listed") else _not_among(servers, question["servers"])
    if missing:
        return "its answer passes without {0!r}, which was asked for".format(str(missing[0]))
    return None


def _not_among(servers: list, asked: list) -> list:
    """Return the ids, names and globs that no server fits."""
    ids, names = _ids_and_names(servers)
    return [one for one in asked if not (_is_among(str(one), ids, names) or any(_is_chosen(name, one) for name in names))]


def _fits_any(server: dict, asked: list) -> bool:
    ids, names = _ids_and_names([server])
    return any(_is_among(str(one), ids, names) or any(_is_chosen(name, one) for name in names) for one in asked)


def _ids_and_names(servers: list) -> tuple[set, set]:
    """Return what servers may be asked for by; capitals and small letters are alike, as they are to the exporter."""
    names = {server["name"].lower() for server in servers if isinstance(server.get("name"), str)}
    return {str(server.get("id")) for server in servers}, names


def _is_among(asked: str, ids: set, names: set) -> bool:
    # A name always matches itself, also one with a glob's characters in it.
    return asked.lower() in names or (is_number(asked) and str(int(asked)) in ids)


def _is_chosen(name: str, asked: object) -> bool:
    return is_glob(asked) and fnmatch.fnmatchcase(name, str(asked).lower())


def is_number(text: str) -> bool:
    """Tell whether a text may be an id."""
    return text.isascii() and text.isdigit()


def is_glob(text: object) -> bool:
    """Tell whether a text may stand for other names than itself."""
    return any(character in str(text) for character in "*?[")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_blocking(reason: dict) -> bool:
    """Tell whether a reason keeps the gate from passing."""
    return reason.get("blocking") is not False


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
    return {"code": code, "message": message, "blocking": True, "server": None, "server_id": None, "account": None}


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


def not_listed(verdict: dict) -> str | None:
    """Return what a verdict leaves out, in a sentence; nothing if it lists all."""
    counts = [verdict[name] for name in ("servers_not_listed", "issues_not_listed", "waived_not_listed")]
    if not any(counts):
        return None
    text = "Not listed: {0} servers, {1} issues over a limit and {2} waived issues; detail: all lists them."
    return text.format(*counts)
