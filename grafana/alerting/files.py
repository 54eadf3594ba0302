"""The rules as files: for Prometheus, and for its operator on Kubernetes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from grafana.alerting import recorded
from grafana.alerting.exporter_alerts import exporter_alerts, stale_servers
from grafana.alerting.fleet_alerts import fleet_alerts, server_alerts
from grafana.alerting.rule import Alert, Group, written

if TYPE_CHECKING:
    from grafana.settings import Settings

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana" / "rules" / "patrolserver.yml"
OPERATORS = ROOT / "packaging" / "kubernetes" / "prometheusrule.yml"
PAGE = ROOT / "docs" / "alerts.md"

_HEAD = """\
# Written by python -m grafana.alerting from grafana/alerting and grafana/settings.yml: change those, and run it again.
"""
_OPERATORS_HEAD = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: patrolserver-exporter
  labels:
    app.kubernetes.io/name: patrolserver-exporter
spec:
"""


_PAGE_HEAD = """\
# Alerts

<!-- Written by make dashboards, from grafana/alerting and grafana/settings.yml. -->

Every alert of [grafana/rules/patrolserver.yml](../grafana/rules/patrolserver.yml), the worst first; each name leads to
its runbook. One with two severities fires with one of them at a time. *Waits* is how long it has to be so before it
fires; where that is empty, it fires at once, or the time is in the condition. [grafana.md](grafana.md#the-alerts)
says in words when each fires, who should be told, and how thresholds are changed.

| alert | severity | waits | what it tells |
| --- | --- | --- | --- |
"""
_SEVERITIES = ("critical", "warning", "info")


def rules(settings: Settings) -> str:
    """Prometheus' file."""
    return _HEAD + _groups(settings)


def operators_rules(settings: Settings) -> str:
    """The operator's file."""
    return _HEAD + _OPERATORS_HEAD + textwrap.indent(_groups(settings), "  ")


def page(settings: Settings) -> str:
    """The page of the documentation that lists every alert."""
    alerts = [rule for group in _all(settings) for rule in group.rules if isinstance(rule, Alert)]
    alerts.sort(key=lambda alert: (_SEVERITIES.index(alert.severity), alert.alert))
    return _PAGE_HEAD + "".join(
        f"| [{alert.alert}](../grafana/runbooks.md#{alert.alert.lower()}) "
        f"| {alert.severity} | {alert.wait} | {alert.summary} |\n"
        for alert in alerts
    )


def _groups(settings: Settings) -> str:
    return written(_all(settings), grafana_url=settings.grafana_url, runbook_url=settings.runbook_url)


def _all(settings: Settings) -> tuple[Group, ...]:
    # What pages stands in one group, so that nothing waits for the turn of another one, and reads no series of servers
    # that it can do without. What grows with the servers has more time: a ticket may come a minute later.
    return (
        Group(
            "patrolserver",
            (
                *recorded.exporters(settings),
                *recorded.critical_servers(settings),
                *fleet_alerts(settings),
                *exporter_alerts(settings),
            ),
        ),
        Group(
            "patrolserver.servers",
            (*recorded.servers(settings), *server_alerts(settings), *stale_servers(settings)),
            "1m",
        ),
        Group("patrolserver.trends", recorded.trends(settings), "1m"),
    )
