"""The question to the gate: from a body to selectors and a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patrolserver_exporter.config.duration import parse_duration
from patrolserver_exporter.config.load import waivers_of
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.gate.policy import Policy
from patrolserver_exporter.web.api.arguments import convert
from patrolserver_exporter.web.api.gate_types import GateBody
from patrolserver_exporter.web.api.selection import Selector, selectors_of
from patrolserver_exporter.web.http.problems import ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be judged, and by what."""

    selectors: tuple[Selector, ...]
    account: str | None
    policy: Policy


def question_of(data: Any) -> Question:
    """Read the body; a 400 for whatever is not clear, because an unclear policy must not let anything pass."""
    body = convert(data, GateBody)
    asked = body.policy
    given = data.get("policy", {})
    policy = Policy(
        max_by_severity=asked.max_by_severity,
        max_by_kind=asked.max_by_kind,
        max_total=asked.max_total,
        max_risk=asked.max_risk,
        max_age=_seconds(asked.max_age, "max_age"),
        max_scan_age=None if asked.max_scan_age is None else _seconds(asked.max_scan_age, "max_scan_age"),
        max_unknown_software=asked.max_unknown_software,
        baseline=frozenset(asked.baseline),
        waivers=_waivers(given.get("waivers", [])),
    )
    return Question(selectors=selectors_of(body.servers), account=body.account, policy=policy)


def _seconds(age: float | str, name: str) -> float:
    if not isinstance(age, str):
        return age
    try:
        return parse_duration(age)
    except ValueError as error:
        raise ApiError(400, f"Wrong at policy.{name}: {error}.", at=f"policy.{name}") from None


def _waivers(data: Any) -> Any:
    try:
        return waivers_of(data, source="policy.waivers")
    except ConfigError as error:
        raise ApiError(400, f"Wrong at policy.waivers: {error}", at="policy.waivers") from None
