"""The shared look: one colour per severity and per state, everywhere.

The colours are the same in both themes, and such that the text that Grafana writes on them, black on bright ones and
white on the others, has a contrast of 4.5 and more. So a value's colour is that of its cell, never of its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from grafana.settings import seconds

if TYPE_CHECKING:
    from grafana.settings import Thresholds

GOOD = "#96d98d"
WARN = "#fade2a"
BAD = "#ffaa55"
WORST = "#c4162a"
CALM = "#1f60c4"
MUTED = "#c4c4c4"

SEVERITIES = {"critical": WORST, "high": BAD, "medium": WARN, "low": CALM}
"""Worst first."""

SOFTWARE_STATES = {"unsupported": BAD, "outdated": WARN, "unknown": MUTED, "supported": GOOD}
"""Worst first. Unsupported software is a high issue, as what was only reported, and outdated software a medium one, so
they share the colours.
"""

INBOX_STATES = {
    "received": "#8ab8ff",
    "fetching": CALM,
    "retry": WARN,
    "blocked": BAD,
    "unverified": "#8f3bb8",
    "dead": WORST,
    "expired": "#fa6400",
    "rejected": MUTED,
    "applied": GOOD,
}

OUTCOMES = {"accepted": GOOD, "duplicate": CALM, "rejected": BAD, "refused": WARN, "failed": WORST}

Limits = tuple[tuple[float, str], ...]

HOUR = 3600.0
DAY = 24 * HOUR

PLAIN: Limits = ()
RISK: Limits = ((4.0, WARN), (7.0, BAD), (9.0, WORST))
"""The limits of the severities."""


def poll_age(limits: Thresholds) -> Limits:
    """How old a poll may be, as the alerts have it."""
    return ((seconds(limits.data_stale_after), WARN), (seconds(limits.data_stale_at_most), WORST))


def scan_age(limits: Thresholds) -> Limits:
    """PatrolServer scans once a day; the alert fires later."""
    late = seconds(limits.scan_overdue)
    return ((0.75 * late, WARN), (late, BAD))


def issue_age(limits: Thresholds) -> Limits:
    """How long an issue may be open: overdue if critical, too long if high, overdue if high."""
    steps = sorted(map(seconds, (limits.overdue.critical, limits.high_too_long, limits.overdue.high)))
    return tuple(zip(map(float, steps), (WARN, BAD, WORST), strict=True))


def thresholds(limits: Limits, base: str = GOOD) -> ThresholdsConfig:
    """``base`` below the first limit, then each limit's colour."""
    steps = [Threshold(value=None, color=base), *(Threshold(value=value, color=color) for value, color in limits)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def any_is(color: str) -> Limits:
    """None is good, one already has the colour."""
    return ((1.0, color),)


def words(meanings: dict[str, tuple[str, str]]) -> ValueMap:
    """Value → (text, colour)."""
    return ValueMap(
        options={
            value: ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(meanings.items())
        }
    )


def fixed_color(color: str) -> DynamicConfigValue:
    """For an override: this colour, whatever the value."""
    return DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def threshold_colors(limits: Limits, base: str = GOOD) -> list[DynamicConfigValue]:
    """For an override: the colour that the value has earned."""
    return [
        DynamicConfigValue(id_val="color", value={"mode": "thresholds"}),
        DynamicConfigValue(id_val="thresholds", value=thresholds(limits, base).build()),
    ]


QUANTILES = {"50 %": (0.5, GOOD), "90 %": (0.9, WARN), "99 %": (0.99, WORST)}
"""Name → (quantile, colour)."""
LOADED = words({"1": ("loaded", GOOD), "0": ("failed", WORST)})
YES_NO = words({"1": ("yes", GOOD), "0": ("no", WORST)})
STORE_STATE = words({"1": ("writes", GOOD), "0": ("cannot write", WORST)})
LIST_STATE = words({"1": ("whole", GOOD), "0": ("a part", WORST)})
API_STATE = words({"1": ("answers", GOOD), "0": ("fails", WORST)})
OWNER = words({"1": ("yes", GOOD), "0": ("no", MUTED)})
NO_PAUSE = words({"0": ("no pause", GOOD)})
NONE_OPEN = words({"0": ("none", GOOD)})
SAME = words({"0": ("the same", GOOD), "1": ("differs", BAD)})
