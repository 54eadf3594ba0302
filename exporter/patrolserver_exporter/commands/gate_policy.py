"""The gate's policy on the command line: flags and files in, the body's policy out.

The flags are those of the fields of `Policy`, as an `Edition` of the command knows them; a field of a usual type needs
its words in ``_HELP`` and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patrolserver_exporter.commands import documents, flags
from patrolserver_exporter.config.duration import parse_duration
from patrolserver_exporter.config.problem import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from patrolserver_exporter.commands.flags import Parser

FlagKind = Literal["count", "risk", "duration", "switch", "grace"]
"""How a member of the policy is written."""
BASELINE_VERSION = 2
KEPT = ("fingerprint", "account", "server", "canonical_name", "kind", "severity", "risk")
"""Members of an issue that a baseline keeps, as the Ansible collection does, beside its exploits."""
KEPT_OF_EXPLOITS = ("id", "cve", "title", "risk")
_MAX_FINGERPRINT = 1024

_HELP = {
    "max_by_severity.critical": "issues that are critical (default: 0)",
    "max_by_severity.high": "issues that are high and worse",
    "max_by_severity.medium": "issues that are medium and worse",
    "max_by_severity.low": "issues that are low and worse",
    "max_by_kind.unsupported": "issues that are unsupported",
    "max_by_kind.outdated": "issues that are outdated",
    "max_by_kind.exploitable": "issues that are exploitable",
    "max_by_kind.reported": "issues that are reported",
    "max_total": "issues in all",
    "max_risk": "no exploit above it, 0 to 10",
    "max_age": "of the last successful poll (default: 24h)",
    "max_scan_age": "of the last scan seen",
    "max_unknown_software": "software in an unknown state up to which a server's data still counts (default: 0)",
    "allow_empty": "a server without any software is fine",
    "grace": "an issue of that severity does not count until it has been there for so long; may be repeated",
    "fixable_only": "outdated or exploitable software without a newer bug-fix release does not count",
}


class BadPolicy(Exception):
    """A flag or file of the policy is wrong; the text says which, and how."""


@dataclass(frozen=True)
class PolicyFlag:
    """A flag and the member of the policy that it sets."""

    flag: str
    member: str
    """As ``max_total`` or ``max_by_severity.high``."""
    kind: FlagKind


@dataclass(frozen=True)
class Edition:
    """What the command of the package and the file for CI machines differ in."""

    program: str
    """How it is called, for messages."""
    policy_flags: tuple[PolicyFlag, ...]
    waivers: str
    """In which form it takes them."""
    read_waivers: Callable[[bytes, str], list[dict[str, Any]]]
    """A file's content and its name in; raises `ConfigError`."""

    @property
    def distribution(self) -> str:
        """The name under which it is installed."""
        return self.program.partition(" ")[0]

    def members(self, name: str) -> tuple[str, ...]:
        """Return those within a member of the policy, as ``critical`` to ``low`` within ``max_by_severity``."""
        found = (one.member.partition(".") for one in self.policy_flags)
        return tuple(inner for outer, _, inner in found if outer == name)

    @property
    def severities(self) -> tuple[str, ...]:
        """All that there are, worst first."""
        return self.members("max_by_severity")

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of issues."""
        return self.members("max_by_kind")


@dataclass(frozen=True)
class KeptExploit:
    """An exploit in a baseline."""

    id: str | None = None
    cve: str | None = None
    title: str | None = None
    risk: float | None = None


@dataclass(frozen=True)
class KeptIssue:
    """An issue in a baseline."""

    fingerprint: str
    kind: str
    severity: str
    risk: float | None = None
    exploits: tuple[KeptExploit, ...] = ()
    account: str | None = None
    server: str | None = None
    canonical_name: str | None = None


def add_flags(parser: Parser, edition: Edition) -> None:
    """Add the flags of the policy. One that is not given has no value, so that it is not sent."""
    group = parser.add_argument_group("policy", "limits count over all servers that are asked for together")
    group.add_argument(
        "--policy", metavar="NAME", type=flags.text, help="of gate.policies of the exporter's configuration"
    )
    for one in edition.policy_flags:
        text = _HELP[one.member]
        if one.kind == "switch":
            group.add_argument(one.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif one.kind == "grace":
            read_grace = _grace_of(edition.severities)
            group.add_argument(one.flag, metavar="SEVERITY=DURATION", action="append", type=read_grace, help=text)
        else:
            metavar, read = _READ[one.kind]
            group.add_argument(one.flag, metavar=metavar, type=read, help=text)
    group.add_argument(
        "--baseline", metavar="FILE", help="issues that do not count: a baseline, or an earlier report in JSON"
    )
    group.add_argument(
        "--write-baseline", metavar="FILE", help="write all open issues of the servers as a baseline, unless in doubt"
    )
    group.add_argument(
        "--waivers", metavar="FILE", help=f"accepted issues, {edition.waivers}: a list as in issues.waivers"
    )


def policy_of(values: Mapping[str, Any], edition: Edition) -> dict[str, Any]:
    """The policy for the body; what is not given is left out. Raises `BadPolicy`."""
    policy: dict[str, Any] = {}
    if values["policy"] is not None:
        policy["policy"] = values["policy"]
    for one in edition.policy_flags:
        value = values[one.flag.removeprefix("--")]
        if value is None:
            continue
        name, _, member = one.member.partition(".")
        if one.kind == "grace":
            policy[name] = _graces(value)
        elif member:
            policy.setdefault(name, {})[member] = value
        else:
            policy[name] = value
    if values["baseline"] is not None:
        policy["baseline"] = read_baseline(Path(values["baseline"]), edition)
    if values["waivers"] is not None:
        policy["waivers"] = _waivers(Path(values["waivers"]), edition)
    return policy


def _graces(given: Iterable[tuple[str, float]]) -> dict[str, float]:
    graces: dict[str, float] = {}
    for severity, seconds in given:
        if severity in graces:
            raise BadPolicy(f"--grace: {severity} is given twice")
        graces[severity] = seconds
    return graces


def read_baseline(path: Path, edition: Edition) -> list[dict[str, Any]]:
    """Issues as they were accepted, of a baseline or of an earlier report. Raises `BadPolicy`."""
    write_again = f"Write it again: {edition.program} SERVER… --write-baseline=FILE."
    try:
        data = documents.decode(_read("--baseline", path))
    except ValueError:
        raise BadPolicy(f"--baseline {path}: it is not JSON.") from None
    if isinstance(data, list) or (isinstance(data, dict) and data.get("version") == 1):
        message = "it does not tell how bad the issues were when they were accepted, so what got worse would pass"
        raise BadPolicy(f"--baseline {path}: {message}. {write_again}")
    issues: Any = None
    if isinstance(data, dict) and data.get("version") == BASELINE_VERSION:
        issues = data.get("issues")
    elif isinstance(data, dict) and "verdict" in data and isinstance(data.get("violations"), list):
        issues = [issue for limit in data["violations"] for issue in _issues(limit)]
    try:
        found = {issue.fingerprint: issue for issue in (_accepted(one, edition) for one in _kept_of(issues))}
    except (documents.Misfit, TypeError, AttributeError):
        raise BadPolicy(
            f"--baseline {path}: it is neither a baseline of version {BASELINE_VERSION} nor a report of this command "
            f"in JSON. {write_again}"
        ) from None
    return [asdict(found[fingerprint]) for fingerprint in sorted(found)]


def _accepted(kept: dict[str, Any], edition: Edition) -> KeptIssue:
    issue = documents.read(KeptIssue, kept)
    sound = 0 < len(issue.fingerprint) <= _MAX_FINGERPRINT
    if not sound or issue.kind not in edition.kinds or issue.severity not in edition.severities:
        raise documents.Misfit("an issue of a fingerprint, kind or severity that there is not")
    return issue


def _issues(limit: Any) -> list[Any]:
    issues = limit.get("issues") if isinstance(limit, dict) else None
    return issues if isinstance(issues, list) else [None]


def _kept_of(issues: Any) -> list[dict[str, Any]]:
    return [{name: issue.get(name) for name in KEPT} | {"exploits": _kept_exploits(issue)} for issue in issues]


def _kept_exploits(issue: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Without those that a waiver covers: they are accepted up to a date, and a baseline has none."""
    exploits = issue.get("exploits") or ()
    return [{name: one.get(name) for name in KEPT_OF_EXPLOITS} for one in exploits if not one.get("waived")]


def baseline_of(issues: Iterable[Mapping[str, Any]]) -> str:
    """The text of a baseline; equal issues make equal texts."""
    kept = {issue["fingerprint"]: issue for issue in _kept_of(issues)}
    document = {"version": BASELINE_VERSION, "issues": [kept[fingerprint] for fingerprint in sorted(kept)]}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _waivers(path: Path, edition: Edition) -> list[dict[str, Any]]:
    try:
        return edition.read_waivers(_read("--waivers", path), str(path))
    except ConfigError as error:
        raise BadPolicy(f"--waivers: {error}") from None


def _read(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadPolicy(f"{flag} {path}: it cannot be read ({error.strerror}).") from None


def _risk(text: str) -> float:
    try:
        risk = float(text)
    except ValueError:
        risk = math.nan
    if not 0 <= risk <= 10:
        raise argparse.ArgumentTypeError("needs a number from 0 to 10")
    return risk


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _grace_of(severities: Sequence[str]) -> Callable[[str], tuple[str, float]]:
    def read(text: str) -> tuple[str, float]:
        severity, _, duration = text.partition("=")
        if severity not in severities:
            known = ", ".join(severities)
            raise argparse.ArgumentTypeError(
                f"needs a severity and a duration, such as high=7d; severities are {known}"
            )
        return severity, _duration(duration)

    return read


_READ: dict[str, tuple[str, Callable[[str], object]]] = {
    "count": ("N", flags.count),
    "risk": ("RISK", _risk),
    "duration": ("DURATION", _duration),
}
"""How the usual kinds of a member are written, and read."""
