# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations as the exporter's configuration writes them, and moments as its API writes them."""

from __future__ import annotations

import datetime as dt
import re

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TERM = r"\d+(?:\.\d+)?(?:ms|s|m|h|d|w)"
_DURATION = re.compile("^(?:{0})+$".format(_TERM))
_PLAIN = re.compile(r"^\d+(?:\.\d+)?$")


def seconds(text: str | float, option: str | None = None) -> float:
    """Return the seconds of ``24h``, ``1h30m``, ``90`` or ``90s``; ``option`` is what a message calls it.

    :raises InvalidInput: for anything else; there is no duration that means for ever.
    """
    written = str(text).strip()
    if _PLAIN.match(written):
        return float(written)
    if not _DURATION.match(written):
        what = "{0}: ".format(option) if option else ""
        told = "{0}{1!r} is no duration: write seconds, or for instance 15m, 24h or 1h30m"
        raise InvalidInput(told.format(what, written[:40]))
    total = 0.0
    for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", written):
        total += float(number) * UNITS[unit]
    return total


def moment(text: str, option: str | None = None) -> float:
    """Return the seconds since the epoch of an RFC 3339 time; ``option`` is what a message calls it.

    :raises InvalidInput: for text that is none, or that names no offset from UTC.
    """
    written = text.strip()
    try:
        parsed = dt.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", _micros(written)))
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        what = "{0}: ".format(option) if option else ""
        told = "{0}{1!r} is no time as RFC 3339 writes it, for instance 2027-01-31T12:00:00Z"
        raise InvalidInput(told.format(what, text[:40]))
    return parsed.timestamp()


def rfc3339(epoch: float) -> str:
    """Return the time in UTC with ``Z``, to the microsecond where there is one."""
    return dt.datetime.fromtimestamp(epoch, dt.timezone.utc).isoformat().replace("+00:00", "Z")


def _micros(written: str) -> str:
    """Pad or cut the fraction to the three or six digits that older Pythons read."""
    match = re.match(r"^(.*[T ]\d\d:\d\d:\d\d)\.(\d+)(.*)$", written)
    if not match:
        return written
    return "{0}.{1}{2}".format(match.group(1), match.group(2)[:6].ljust(6, "0"), match.group(3))
