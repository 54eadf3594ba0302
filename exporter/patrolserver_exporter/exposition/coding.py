"""Whether the client wants its answer gzipped (RFC 9110, section 12.5.3)."""

from __future__ import annotations


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Tell whether gzip is acceptable and at least as welcome as no coding; an unreadable weight refuses its coding."""
    weights = dict(map(weighed, (accept_encoding or "").lower().split(",")))
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def weighed(item: str) -> tuple[str, float]:
    """Take one item of an Accept header, in small letters, apart: what it names, and how welcome that is (0 to 1)."""
    coding, *parameters = (part.strip() for part in item.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return coding, _weight(value.strip())
    return coding, 1.0


def _weight(value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
