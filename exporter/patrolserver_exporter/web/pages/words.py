"""Counts and lists in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def number(count: int) -> str:
    """Write a count with separators: 12,345."""
    return f"{count:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun: 1 server, 2 servers."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def listed(parts: Sequence[str]) -> str:
    """Join with commas and an "and"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def place(location: str | None, parent: str | None) -> str:
    """Say where a software is installed."""
    parts = [location or "", f"part of {parent}" if parent else ""]
    return ", ".join(part for part in parts if part)
