# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's policy, from a task's options to what the exporter takes. Nothing that is unclear means more lenient."""

from __future__ import annotations

import datetime as dt
import json
import re

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import KINDS
from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

LIMITS = ("max_total", "max_risk", "max_unknown_software")
AGES = ("max_age", "max_scan_age")
WAIVER_FIELDS = ("server", "software", "kind", "until", "reason")
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")


def policy(params: dict, baseline: list | None, waivers: list) -> dict:
    """Return the policy; what is unset is left out, so that the exporter's defaults hold."""
    asked = {name: params[name] for name in LIMITS if params.get(name) is not None}
    for name in AGES:
        if params.get(name) is not None:
            asked[name] = seconds(params[name])
    for name in ("max_by_severity", "max_by_kind"):
        limits = {key: limit for key, limit in (params.get(name) or {}).items() if limit is not None}
        if limits:
            asked[name] = limits
    for name, limit in [*asked.items(), *_inner(asked)]:
        if not isinstance(limit, dict) and limit < 0:
            raise InvalidInput("{0} must not be negative".format(name))
    if baseline is not None:
        asked["baseline"] = sorted(set(baseline))
    if waivers:
        asked["waivers"] = waivers
    return asked


def waivers_of(inline: list | None, text: str | None, source: str = "") -> list:
    """Return the waivers of the task and of its file, each checked.

    :raises InvalidInput: for one without a server, software, reason or a date at which it ends.
    """
    found = [_checked(item, "waiver {0}".format(index + 1)) for index, item in enumerate(inline or [])]
    if text is not None:
        for index, item in enumerate(_parsed(text, source)):
            found.append(_checked(item, "{0}: waiver {1}".format(source, index + 1)))
    return found


def _inner(asked: dict) -> list:
    return [
        ("{0}.{1}".format(name, key), limit)
        for name in ("max_by_severity", "max_by_kind")
        for key, limit in asked.get(name, {}).items()
    ]


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
    unknown = sorted(set(item) - set(WAIVER_FIELDS))
    if unknown:
        raise InvalidInput("{0}: unknown keys {1}".format(where, ", ".join(map(str, unknown))))
    waiver = {key: str(value).strip() for key, value in item.items() if value is not None}
    for field in ("server", "software", "until", "reason"):
        if not waiver.get(field):
            raise InvalidInput("{0}: {1!r} is missing".format(where, field))
    if waiver.get("kind") is not None and waiver["kind"] not in KINDS:
        raise InvalidInput("{0}: kind has to be one of {1}".format(where, ", ".join(KINDS)))
    waiver["until"] = _date(waiver["until"], where)
    return waiver


def _date(text: str, where: str) -> str:
    try:
        if not _DATE.match(text):
            raise ValueError
        return dt.date(*map(int, text.split("-"))).isoformat()
    except ValueError:
        raise InvalidInput("{0}: until has to be a day, written like 2027-01-31; it is {1!r}".format(where, text)) from None
