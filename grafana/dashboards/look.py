"""The shared look: one colour per severity and per state, everywhere, by Grafana's names, which both themes have."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

GOOD = "green"
WARN = "yellow"
BAD = "orange"
WORST = "dark-red"
CALM = "blue"
MUTED = "#8e8e8e"

SEVERITIES = {"critical": WORST, "high": BAD, "medium": WARN, "low": CALM}
"""Worst first."""

SOFTWARE_STATES = {"unsupported": BAD, "outdated": WARN, "unknown": MUTED, "supported": GOOD}
"""Worst first. Unsupported software is a high issue and outdated software a medium one, so they share the colours."""

INBOX_STATES = {
    "received": "light-blue",
    "fetching": CALM,
    "retry": WARN,
    "blocked": BAD,
    "unverified": "purple",
    "dead": WORST,
    "expired": "dark-orange",
    "rejected": MUTED,
    "applied": GOOD,
}

OUTCOMES = {"accepted": GOOD, "duplicate": CALM, "rejected": BAD, "refused": WARN, "failed": WORST}

Limits = tuple[tuple[float, str], ...]

HOUR = 3600.0
DAY = 24 * HOUR

PLAIN: Limits = ()
POLL_AGE: Limits = ((HOUR, WARN), (DAY, WORST))
"""Beyond a day the gate's default policy calls the data too old."""
SCAN_AGE: Limits = ((1.5 * DAY, WARN), (2 * DAY, BAD))
"""PatrolServer scans once a day; the alert fires after two."""
ISSUE_AGE: Limits = ((3 * DAY, WARN), (7 * DAY, BAD), (30 * DAY, WORST))
RISK: Limits = ((4.0, WARN), (7.0, BAD), (9.0, WORST))
"""The limits of the severities."""


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
