"""What differs from one place to another: ``settings.yml``, and a user's own file that says what is otherwise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = Path(__file__).parent / "settings.yml"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"[1-9][0-9]*[smhd]")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TAKEN = {
    "account",
    "datasource",
    "server",
    "server_id",
    "job",
    "instance",
    "severity",
    "software",
    "verified",
    "alertname",
}

Duration = Annotated[str, msgspec.Meta(pattern=rf"^{_DURATION.pattern}$")]


class Overdue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For how long an issue may be open."""

    critical: Duration
    high: Duration
    medium: Duration
    low: Duration


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where on somebody is told; ``settings.yml`` explains each."""

    gap: Duration
    exporter_down: Duration
    exporter_behind: Duration
    api_unreachable: Duration
    data_stale_intervals: Annotated[int, msgspec.Meta(ge=1)]
    data_stale_after: Duration
    data_stale_at_most: Duration
    never_polled: Duration
    inbox_first_try: Duration
    inbox_retry: Duration
    event_lag: Duration
    clock_offset: Duration
    webhook_silent: Duration
    follow: Duration
    waiver_ending: Duration
    high_too_long: Duration
    overdue: Overdue
    scan_overdue: Duration
    servers_disappeared: Duration
    missed: Duration


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it."""

    job: str
    grafana_url: str
    exporter_url: str
    runbook_url: str
    owner_labels: tuple[str, ...]
    thresholds: Thresholds

    @property
    def jobs(self) -> str:
        """The regular expression as PromQL writes it."""
        return json.dumps(self.job, ensure_ascii=False)


def load(own: Path | None = None) -> Settings:
    """The settings; ``own`` is a file with what is to be otherwise.

    Raises:
        ValueError: a key does not exist, or its value is none that it may have.
    """
    values = _read(FILE)
    if own is not None:
        values = _laid_over(values, _read(own))
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"{own or FILE}: {error}") from None
    wrong = [name for name in settings.owner_labels if not _LABEL.fullmatch(name) or name in _TAKEN]
    if wrong:
        raise ValueError(f"{own or FILE}: owner_labels: {wrong[0]} is no label that a server may be given")
    re.compile(settings.job)
    return settings


def seconds(duration: str) -> int:
    """A duration in seconds."""
    return int(duration[:-1]) * UNITS[duration[-1]]


def words(duration: str) -> str:
    """A duration for people."""
    number, unit = int(duration[:-1]), {"s": "second", "m": "minute", "h": "hour", "d": "day"}[duration[-1]]
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _read(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text()) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: this is no list of keys with values")  # noqa: TRY004  # it is the file's value
    return values


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        inner = found.get(key)
        found[key] = _laid_over(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found
