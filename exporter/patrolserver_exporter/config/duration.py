"""Durations as Prometheus writes them: ``15m``, ``1h30m``, ``90d``, ``500ms``."""

from __future__ import annotations

import re

from patrolserver_exporter.config.problem import Unfit

_DAY_MS = 86_400_000
_UNITS_MS = {"y": 365 * _DAY_MS, "w": 7 * _DAY_MS, "d": _DAY_MS, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit})?" for unit in _UNITS_MS))
_PLAIN_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(text: str) -> float:
    """Return seconds. Units are y, w, d, h, m, s and ms, each at most once and in this order; ``0`` needs none.

    Raises `Unfit`, a `ValueError`, that says what to write.
    """
    if text == "0":
        return 0.0
    if _PLAIN_NUMBER.fullmatch(text):
        raise Unfit("needs a duration with a unit, such as 30s, 15m, 1h30m or 90d; a plain number has none")
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise Unfit("needs a duration such as 500ms, 30s, 15m, 1h30m or 90d: whole numbers, the largest unit first")
    milliseconds = sum(int(number) * unit for number, unit in zip(match.groups("0"), _UNITS_MS.values()))
    if milliseconds > 100 * _UNITS_MS["y"]:
        raise Unfit("needs a duration of at most 100y")
    return milliseconds / 1000


def format_duration(seconds: float) -> str:
    """Write seconds in the form that `parse_duration` reads, to the millisecond; years and weeks become days."""
    rest, text = round(seconds * 1000), ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(max(rest, 0), _UNITS_MS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"
