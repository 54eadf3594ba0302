"""The gate's policy on the command line: flags and files in, the body's policy out."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.commands import flags
from patrolserver_exporter.config.duration import parse_duration
from patrolserver_exporter.config.load import parse_waivers
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.gate.policy import AcceptedIssue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from patrolserver_exporter.commands.flags import Parser

SEVERITIES = ("critical", "high", "medium", "low")
KINDS = ("unsupported", "outdated", "exploitable", "reported")
BASELINE_VERSION = 2
KEPT = ("fingerprint", "account", "server", "canonical_name", "kind", "severity", "risk")
"""Members of an issue that a baseline keeps, as the Ansible collection does, beside its exploits."""
KEPT_OF_EXPLOITS = ("id", "cve", "title", "risk")
WRITE_ANEW = "Write it anew: patrolserver-exporter gate SERVER… --write-baseline=FILE."


class BadPolicy(Exception):
    """A flag or file of the policy is wrong; the text says which, and how."""


def add_flags(parser: Parser) -> None:
    """Add the flags of the policy."""
    group = parser.add_argument_group("policy")
    for severity in SEVERITIES:
        worse = "" if severity == "critical" else " and worse"
        default = " (default: 0)" if severity == "critical" else ""
        group.add_argument(
            f"--max-{severity}", metavar="N", type=flags.count, help=f"issues that are {severity}{worse}{default}"
        )
    for kind in KINDS:
        group.add_argument(f"--max-{kind}", metavar="N", type=flags.count, help=f"issues that are {kind}")
    group.add_argument("--max-total", metavar="N", type=flags.count, help="issues in all")
    group.add_argument("--max-risk", metavar="RISK", type=_risk, help="no exploit above it, 0 to 10")
    group.add_argument(
        "--max-age", metavar="DURATION", type=_duration, help="of the last successful poll (default: 24h)"
    )
    group.add_argument("--max-scan-age", metavar="DURATION", type=_duration, help="of the last scan seen")
    group.add_argument(
        "--max-unknown-software",
        metavar="N",
        type=flags.count,
        help="software in an unknown state up to which a server's data still counts (default: 0)",
    )
    group.add_argument(
        "--baseline", metavar="FILE", help="issues that do not count: a baseline, or an earlier report in JSON"
    )
    group.add_argument(
        "--write-baseline", metavar="FILE", help="write all open issues of the servers as a baseline, unless in doubt"
    )
    group.add_argument("--waivers", metavar="FILE", help="accepted issues, YAML or JSON, as in the configuration")


def policy_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The policy for the body; what is not set is left out. Raises `BadPolicy`."""
    policy: dict[str, Any] = {}
    for name, members in (("max_by_severity", SEVERITIES), ("max_by_kind", KINDS)):
        limits = {member: values[f"max-{member}"] for member in members if values[f"max-{member}"] is not None}
        if limits:
            policy[name] = limits
    for flag in ("max-total", "max-risk", "max-age", "max-scan-age", "max-unknown-software"):
        if values[flag] is not None:
            policy[flag.replace("-", "_")] = values[flag]
    if values["baseline"] is not None:
        policy["baseline"] = read_baseline(Path(values["baseline"]))
    if values["waivers"] is not None:
        policy["waivers"] = _waivers(Path(values["waivers"]))
    return policy


def read_baseline(path: Path) -> list[dict[str, Any]]:
    """Issues as they were accepted, of a baseline or of an earlier report. Raises `BadPolicy`."""
    try:
        data = json.loads(_read("--baseline", path))
    except (ValueError, RecursionError):
        raise BadPolicy(f"--baseline {path}: it is no JSON.") from None
    if isinstance(data, list) or (isinstance(data, dict) and data.get("version") == 1):
        message = "it does not tell how bad the issues were when they were accepted, so what got worse would pass"
        raise BadPolicy(f"--baseline {path}: {message}. {WRITE_ANEW}")
    issues: Any = None
    if isinstance(data, dict) and data.get("version") == BASELINE_VERSION:
        issues = data.get("issues")
    elif isinstance(data, dict) and "verdict" in data and isinstance(data.get("violations"), list):
        issues = [issue for limit in data["violations"] for issue in _issues(limit)]
    try:
        found = {issue.fingerprint: issue for issue in msgspec.convert(_kept_of(issues), tuple[AcceptedIssue, ...])}
    except (msgspec.ValidationError, TypeError, AttributeError):
        raise BadPolicy(
            f"--baseline {path}: it is neither a baseline of version {BASELINE_VERSION} nor a report of this command "
            f"in JSON. {WRITE_ANEW}"
        ) from None
    return [msgspec.to_builtins(found[fingerprint]) for fingerprint in sorted(found)]


def _issues(limit: Any) -> list[Any]:
    issues = limit.get("issues") if isinstance(limit, dict) else None
    return issues if isinstance(issues, list) else [None]


def _kept_of(issues: Any) -> list[dict[str, Any]]:
    return [
        {name: issue.get(name) for name in KEPT}
        | {"exploits": [{name: one.get(name) for name in KEPT_OF_EXPLOITS} for one in issue.get("exploits") or ()]}
        for issue in issues
    ]


def write_baseline(path: Path, issues: Iterable[Mapping[str, Any]]) -> None:
    """Write the issues as a baseline, whole or not at all; equal issues make equal files. Raises ``OSError``."""
    kept = {issue["fingerprint"]: issue for issue in _kept_of(issues)}
    document = {"version": BASELINE_VERSION, "issues": [kept[fingerprint] for fingerprint in sorted(kept)]}
    write_whole(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees a part of it. Raises ``OSError``."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _waivers(path: Path) -> list[dict[str, Any]]:
    try:
        waivers = parse_waivers(_read("--waivers", path), source=str(path))
    except ConfigError as error:
        raise BadPolicy(f"--waivers: {error}") from None
    return [
        {
            "server": waiver.server,
            "software": waiver.software,
            "until": waiver.until.isoformat(),
            "reason": waiver.reason,
        }
        | ({} if waiver.kind is None else {"kind": waiver.kind.value})
        for waiver in waivers
    ]


def _read(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadPolicy(f"{flag} {path}: it cannot be read ({error.strerror}).") from None


def _risk(text: str) -> float:
    risk = float(text)
    if not math.isfinite(risk) or not 0 <= risk <= 10:
        raise ValueError
    return risk


_risk.__name__ = "risk from 0 to 10"


def _duration(text: str) -> float:
    return parse_duration(text)


_duration.__name__ = "duration such as 30m or 24h"
