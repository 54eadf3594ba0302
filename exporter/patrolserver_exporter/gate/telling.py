"""How an answer of the gate is told, by the exporter and by the command: how much is listed, and ages in words."""

from __future__ import annotations

PROBLEMS = "problems"
"""What does not pass, the worst first, up to 1,000 of each list."""
ALL = "all"
LISTED_WHOLE = 500
"""Servers up to which everything is listed unless it is asked for otherwise."""
MAX_LISTED = 1_000
"""Entries of a list of problems."""


def spoken(seconds: float) -> str:
    """A duration for people, in its two largest units."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    rest = seconds
    if not 0 <= rest < 10**12:
        return f"{seconds} s"
    parts = []
    for unit, size in units:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{int(count)} {unit}")
    return " ".join(parts[:2]) or "0 s"
