"""What a rule is, and how it is written as the YAML that Prometheus reads."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

WIDTH = 112


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule."""

    record: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alerting rule. Several may have one name: then they differ in severity, and only one fires at a time."""

    alert: str
    expr: str
    severity: str
    summary: str
    """One sentence without templates: it is the same for all that fire."""
    description: str
    dashboard: str
    """Path and parameters."""
    wait: str = ""
    """How long it has to be so."""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, so that each sees what those before it recorded."""

    name: str
    rules: tuple[Record | Alert, ...]
    interval: str = ""
    """Where the usual one of Prometheus is more often than needed."""


def written(groups: tuple[Group, ...], *, grafana_url: str, runbook_url: str) -> str:
    """The text of a rules file, without a head."""
    parts = ["groups:\n"]
    for group in groups:
        parts.append(f"  - name: {group.name}\n")
        if group.interval:
            parts.append(f"    interval: {group.interval}\n")
        parts.append("    rules:\n")
        parts.append("\n".join(_rule(rule, grafana_url, runbook_url) for rule in group.rules))
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _rule(rule: Record | Alert, grafana_url: str, runbook_url: str) -> str:
    if isinstance(rule, Record):
        return f"      - record: {rule.record}\n{_expr(rule.expr)}"
    wait = f"        for: {rule.wait}\n" if rule.wait else ""
    labels = "".join(
        f"          {name}: {value}\n" for name, value in {"severity": rule.severity, **rule.labels}.items()
    )
    description = textwrap.fill(
        " ".join(rule.description.split()), WIDTH, break_long_words=False, break_on_hyphens=False
    )
    return (
        f"      - alert: {rule.alert}\n{_expr(rule.expr)}{wait}"
        f"        labels:\n{labels}"
        "        annotations:\n"
        f"          summary: {rule.summary}\n"
        f"          description: >-\n{textwrap.indent(description, ' ' * 12)}\n"
        f"          runbook_url: {runbook_url}#{rule.alert.lower()}\n"
        f"          dashboard_url: {grafana_url}{rule.dashboard}\n"
    )


def _expr(expr: str) -> str:
    return f"        expr: |\n{textwrap.indent(textwrap.dedent(expr).strip(), ' ' * 10)}\n"
