"""What a deploy gate asks for: the one definition of its policy, what a request may change of it, and its limits.

The configuration (``gate.policies``), the API's body, the command's flags, the documentation and the Ansible collection
take the keys of `Policy` from here, or are held against it by a test. A new limit is one field and its rule, below.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from patrolserver_exporter.issues.model import SEVERITIES, Issue, Kind, Severity, Waiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


BUILTIN = "builtin"
"""The name of the policy that holds where the configuration has none."""

DAY = 86_400.0
LONGEST = 100 * 365 * DAY
_DURATION_SCHEMA = {"type": ["number", "string"], "format": "go-duration", "examples": [86_400, "24h", "1h30m"]}

Count = Annotated[int, Meta(ge=0)]
Risk = Annotated[float, Meta(ge=0, le=10)]
Duration = Annotated[float, Meta(ge=0, le=LONGEST, extra={"kind": "duration"}, extra_json_schema=_DURATION_SCHEMA)]
"""Seconds. The configuration writes ``24h``; the API takes both."""


class SeverityLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many issues of a severity and worse are accepted, over all servers that are asked for; null: any number."""

    critical: Count = 0
    """At most so many critical issues."""
    high: Count | None = None
    """At most so many high and critical issues. Null: any number."""
    medium: Count | None = None
    """At most so many medium, high and critical issues. Null: any number."""
    low: Count | None = None
    """At most so many issues of any severity. Null: any number."""


class KindLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many issues of a kind are accepted, over all servers that are asked for; null: any number."""

    unsupported: Count | None = None
    """At most so many unsupported issues. Null: any number."""
    outdated: Count | None = None
    """At most so many outdated issues. Null: any number."""
    exploitable: Count | None = None
    """At most so many exploitable issues. Null: any number."""
    reported: Count | None = None
    """At most so many reported issues. Null: any number."""


class Grace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an issue does not count against a limit, from when it got that limit's severity or worse."""

    critical: Duration | None = None
    """An issue that is critical counts once it has had a limit's severity or worse for so long. Null: at once."""
    high: Duration | None = None
    """The same for one that is high."""
    medium: Duration | None = None
    """The same for one that is medium."""
    low: Duration | None = None
    """The same for one that is low."""


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deploy gate asks for. Limits count over all servers that are asked for; null: no such limit."""

    max_by_severity: SeverityLimits = SeverityLimits()
    max_by_kind: KindLimits = KindLimits()
    max_total: Count | None = None
    """At most so many issues in all. Null: any number."""
    max_risk: Risk | None = None
    """No exploit above it, 0 to 10. Null: any risk."""
    max_age: Duration = DAY
    """Age of a server's last successful poll; with older data nobody can vouch for it."""
    max_scan_age: Duration | None = None
    """Age of the end of a server's last scan that was seen. Null: any age, and none seen."""
    max_unknown_software: Count = 0
    """For each server: software in a state that nobody knows, up to which its data counts as known."""
    allow_empty: bool = False
    """A server without any software is fine."""
    grace: Grace = Grace()
    fixable_only: bool = False
    """Outdated or exploitable software without a newer bug-fix release does not count."""
    waivers: tuple[Waiver, ...] = ()
    """Issues that are accepted by this policy, beside those of `issues.waivers`."""


class NamedPolicy(Policy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy of the configuration, and what a request may loosen of it."""

    allow_baseline: bool = False
    """A request may bring a baseline of its own."""
    allow_waivers: bool = False
    """A request may bring waivers of its own."""
    allow_grace: bool = False
    """A request may bring a grace of its own."""
    allow_fixable_only: bool = False
    """A request may ask for `fixable_only`."""
    allow_allow_empty: bool = False
    """A request may ask for `allow_empty`."""


class AcceptedExploit(Struct, frozen=True, kw_only=True):
    """An exploit as it was when a baseline was written."""

    id: str | None = None
    cve: str | None = None
    title: str | None = None
    risk: float | None = None
    """0 to 10; null: nobody knew it."""


class AcceptedIssue(Struct, frozen=True, kw_only=True):
    """An issue as it was when a baseline was written: what has become worse since is not covered."""

    fingerprint: Annotated[str, Meta(min_length=1, max_length=1024)]
    kind: Kind
    severity: Severity
    risk: float | None = None
    """0 to 10; null for what is not exploitable, or while nobody knew it."""
    exploits: tuple[AcceptedExploit, ...] = ()
    # The server has to be the one that has this name now, where one is given; the others are for people and diffs.
    account: str | None = None
    server: str | None = None
    canonical_name: str | None = None


class AskedPolicy(Policy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy in a request: the name of one of the configuration, and what it asks for beside it."""

    policy: Annotated[str, Meta(extra_json_schema={"format": "policy-name"})] | None = None
    """A name of `gate.policies`; null: `gate.default_policy`."""
    baseline: tuple[AcceptedIssue, ...] = ()
    """Issues as they were accepted; they do not count unless they have become worse."""


class Inline(StrEnum):
    """What a request may ask for itself."""

    ANY = "any"
    TIGHTEN = "tighten"
    NONE = "none"


class PolicyRefused(Exception):
    """A request asks for what the configuration does not allow; ``key`` is the member of the policy that is refused."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


LOOSENING = {
    "waivers": "allow_waivers",
    "baseline": "allow_baseline",
    "grace": "allow_grace",
    "fixable_only": "allow_fixable_only",
    "allow_empty": "allow_allow_empty",
}
"""Members that let more pass, and the key of the configuration's policy that permits them."""


class InForce(Struct, frozen=True, kw_only=True):
    """The policy by which a request is judged."""

    name: str
    policy: Policy
    baseline: tuple[AcceptedIssue, ...] = ()


def in_force(
    asked: AskedPolicy,
    given: Mapping[str, Any],
    *,
    policies: Mapping[str, NamedPolicy],
    default_policy: str | None,
    inline: Inline,
) -> InForce:
    """Decide what a request is judged by; `PolicyRefused` if it asks for what the configuration does not allow.

    ``given`` is the policy as it was written, which tells what was asked for from what is only a default.
    """
    name, base = _named(asked.policy, policies, default_policy)
    own = {key: value for key, value in given.items() if key != "policy"}
    if inline is Inline.NONE and own:
        key = min(own)
        raise PolicyRefused(key, f"gate.inline is none, so a request brings no {key} of its own; take it out.")
    tighten = inline is Inline.TIGHTEN
    if tighten:
        _refuse_loosening(asked, name, base)
    changed = {key: _joined(key, own[key], base, asked, tighten=tighten) for key in own if key != "baseline"}
    return InForce(name=name, policy=replace(base, **changed), baseline=asked.baseline)


def _named(asked: str | None, policies: Mapping[str, NamedPolicy], default: str | None) -> tuple[str, Policy]:
    known = ", ".join(policies)
    name = default if asked is None else asked
    if not policies:
        if name in {None, BUILTIN}:
            return BUILTIN, Policy()
        raise PolicyRefused("policy", f"There is no policy {name!r}: the configuration has none (gate.policies).")
    if name is None:
        message = f"A policy has to be named, since gate.default_policy is not set; there are {known}."
        raise PolicyRefused("policy", message)
    if name not in policies:
        raise PolicyRefused("policy", f"There is no policy {name!r} in gate.policies; there are {known}.")
    return name, policies[name]


def _refuse_loosening(asked: AskedPolicy, name: str, base: Policy) -> None:
    for key, permit in LOOSENING.items():
        if getattr(asked, key) in ((), False, Grace()) or getattr(base, permit, False):
            continue
        if key in {"fixable_only", "allow_empty"} and getattr(base, key):
            continue
        raise PolicyRefused(
            key,
            f"The policy {name} allows a request no {key} of its own (gate.inline is tighten); take it out, or set "
            f"gate.policies.{name}.{permit}.",
        )


def _joined(key: str, written: Any, base: Policy, asked: AskedPolicy, *, tighten: bool) -> Any:
    """One member of the policy in force: the stricter of the two, or what was asked for."""
    before, wanted = getattr(base, key), getattr(asked, key)
    if key == "waivers":
        return (*before, *wanted)
    if isinstance(wanted, (SeverityLimits, KindLimits)):
        members = {name: getattr(wanted, name) for name in written}
        if tighten:
            members = {name: _stricter(getattr(before, name), value) for name, value in members.items()}
        return replace(before, **members)
    if isinstance(wanted, Grace):
        return replace(before, **{name: getattr(wanted, name) for name in written})
    if key in LOOSENING or not tighten:
        return wanted
    return _stricter(before, wanted)


def _stricter(one: float | None, other: float | None) -> float | None:
    """The lower of two maxima; none is the loosest."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``allowed`` of the issues that it ``counts``."""

    name: str
    """As in the policy, ``max_by_severity.high``."""
    flag: str
    """The command's, ``--max-high``."""
    allowed: int
    wording: str
    """What it counts, after "issues that"."""
    counts: Callable[[Issue], bool]
    severity: Severity | None = None
    """It counts this one and worse; ``None``: any. A grace is counted from when an issue got so bad."""


def limits_of(policy: Policy) -> tuple[Limit, ...]:
    """All limits that the policy sets. A new one is a field of the policy, and its rule here."""
    return (*_by_severity(policy), *_by_kind(policy), *_overall(policy))


def _by_severity(policy: Policy) -> Iterable[Limit]:
    for severity in SEVERITIES:
        allowed: int | None = getattr(policy.max_by_severity, severity.value)
        if allowed is not None:
            counted = frozenset(SEVERITIES[: SEVERITIES.index(severity) + 1])
            wording = f"are {severity.value}" if len(counted) == 1 else f"are {severity.value} or worse"
            name, flag = f"max_by_severity.{severity.value}", f"--max-{severity.value}"
            yield Limit(name, flag, allowed, wording, _has_severity(counted), severity)


def _by_kind(policy: Policy) -> Iterable[Limit]:
    for kind in Kind:
        allowed: int | None = getattr(policy.max_by_kind, kind.value)
        if allowed is not None:
            yield Limit(
                f"max_by_kind.{kind.value}", f"--max-{kind.value}", allowed, f"are {kind.value}", _has_kind(kind)
            )


def _overall(policy: Policy) -> Iterable[Limit]:
    if policy.max_total is not None:
        yield Limit("max_total", "--max-total", policy.max_total, "count", lambda _: True)
    if policy.max_risk is not None:
        above = f"have a risk above {policy.max_risk:g}"
        yield Limit("max_risk", "--max-risk", 0, above, _has_risk_above(policy.max_risk))


def _has_severity(severities: frozenset[Severity]) -> Callable[[Issue], bool]:
    return lambda issue: issue.severity in severities


def _has_kind(kind: Kind) -> Callable[[Issue], bool]:
    return lambda issue: issue.kind is kind


def _has_risk_above(max_risk: float) -> Callable[[Issue], bool]:
    """An exploit without a known risk may be anything."""
    return lambda issue: issue.kind is Kind.EXPLOITABLE and not (issue.risk is not None and issue.risk <= max_risk)
