# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's policy, from a task's options to what the exporter takes. Nothing that is unclear means more lenient."""

from __future__ import annotations

import datetime as dt
import json
import re

from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

SEVERITIES = ["critical", "high", "medium", "low"]
KINDS = ["unsupported", "outdated", "exploitable", "reported"]
# Raw, because Ansible would write a list as text, which is a glob that matches nothing.
WAIVER_OPTIONS = {
    "server": {"type": "raw", "required": True},
    "software": {"type": "raw", "required": True},
    "exploit": {"type": "raw"},
    "kind": {"type": "str", "choices": KINDS},
    "max_severity": {"type": "str", "choices": SEVERITIES},
    "until": {"type": "raw", "required": True},
    "reason": {"type": "raw", "required": True},
}


def _members(names: list, kind: str) -> dict:
    return {"type": "dict", "options": {name: {"type": kind} for name in names}}


# The members of the exporter's policy, by their names there. None has a default: what a task does not set is not asked for.
OPTIONS = {
    "policy": {"type": "str"},
    "max_by_severity": _members(SEVERITIES, "int"),
    "max_by_kind": _members(KINDS, "int"),
    "max_total": {"type": "int"},
    "max_risk": {"type": "float"},
    "max_age": {"type": "str"},
    "max_scan_age": {"type": "str"},
    "max_unknown_software": {"type": "int"},
    "allow_empty": {"type": "bool"},
    "grace": _members(SEVERITIES, "str"),
    "fixable_only": {"type": "bool"},
    "waivers": {"type": "list", "elements": "dict", "options": WAIVER_OPTIONS},
}
DURATIONS = ("max_age", "max_scan_age", "grace")
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")


def policy(params: dict, baseline: list | None, waivers: list) -> dict:
    """Return the policy; what is unset is left out, so that the exporter's defaults and its named policy hold."""
    asked = {}
    for name in OPTIONS:
        if name == "waivers" or params.get(name) is None:
            continue
        value = params[name]
        if isinstance(value, dict):
            value = {key: _checked_limit(name + "." + key, one) for key, one in value.items() if one is not None}
            if not value:
                continue
        else:
            value = _checked_limit(name, value)
        asked[name] = value
    if baseline is not None:
        asked["baseline"] = baseline
    if waivers:
        asked["waivers"] = waivers
    return asked


def _checked_limit(name: str, value: object) -> object:
    if name.partition(".")[0] in DURATIONS:
        return seconds(value, name)
    if isinstance(value, (int, float)) and value < 0:
        raise InvalidInput("{0}: it must not be negative, and is {1}".format(name, value))
    return value


def waivers_of(inline: list | None, text: str | None, source: str = "") -> list:
    """Return the waivers of the task and of its file, each checked.

    :raises InvalidInput: for one without a server, software, reason or a date at which it ends.
    """
    found = [_checked(item, "waiver {0}".format(index + 1)) for index, item in enumerate(inline or [])]
    if text is not None:
        for index, item in enumerate(_parsed(text, source)):
            found.append(_checked(item, "{0}: waiver {1}".format(source, index + 1)))
    return found


def _parsed(text: str, source: str) -> list:
    document = _document(text, source)
    if isinstance(document, dict) and list(document) == ["waivers"]:
        document = document["waivers"]
    if not isinstance(document, list):
        raise InvalidInput("{0}: it has to be a list of waivers, or a dictionary with the one key 'waivers'".format(source))
    return document


def _document(text: str, source: str) -> object:
    try:
        # Only who has a file pays for the import, and JSON needs none.
        import yaml
    except ImportError:
        try:
            return json.loads(text)
        except ValueError:
            raise InvalidInput("{0}: it is no JSON, and there is no PyYAML here to read it as YAML".format(source)) from None
    try:
        # The base loader leaves every scalar as it is written: no date, number or boolean is guessed.
        return yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise InvalidInput("{0}: it is no YAML: {1}".format(source, str(error).replace("\n", " "))) from None


def _checked(item: object, where: str) -> dict:
    if not isinstance(item, dict):
        raise InvalidInput("{0}: it is no dictionary".format(where))
    unknown = sorted(set(item) - set(WAIVER_OPTIONS))
    if unknown:
        raise InvalidInput("{0}: unknown keys {1}".format(where, ", ".join(map(str, unknown))))
    for key, value in item.items():
        if isinstance(value, (list, tuple, dict)):
            raise InvalidInput("{0}: {1} has to be one text; write a waiver for each, or a glob".format(where, key))
    waiver = {key: str(value).strip() for key, value in item.items() if value is not None}
    for field, option in WAIVER_OPTIONS.items():
        if option.get("required") and not waiver.get(field):
            raise InvalidInput("{0}: {1!r} is missing".format(where, field))
        if field in waiver and waiver[field] not in option.get("choices", [waiver[field]]):
            raise InvalidInput("{0}: {1} has to be one of {2}".format(where, field, ", ".join(option["choices"])))
    if waiver.get("exploit") == "":
        # It would mean each exploit to one reader, and none to another.
        raise InvalidInput("{0}: exploit is empty".format(where))
    waiver["server"] = waiver["server"].rstrip(".") or waiver["server"]
    waiver["until"] = _date(waiver["until"], where)
    return waiver


def _date(text: str, where: str) -> str:
    try:
        if not _DATE.match(text):
            raise ValueError
        return dt.date(*map(int, text.split("-"))).isoformat()
    except ValueError:
        raise InvalidInput("{0}: until has to be a day, written like 2027-01-31; it is {1!r}".format(where, text)) from None
