"""The rules as files: for Prometheus, and for its operator on Kubernetes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from grafana.alerting import recorded
from grafana.alerting.exporter_alerts import exporter_alerts
from grafana.alerting.fleet_alerts import fleet_alerts
from grafana.alerting.rule import Group, written

if TYPE_CHECKING:
    from grafana.settings import Settings

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana" / "rules" / "patrolserver.yml"
OPERATORS = ROOT / "packaging" / "kubernetes" / "prometheusrule.yml"

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


def rules(settings: Settings) -> str:
    """Prometheus' file."""
    return _HEAD + _groups(settings)


def operators_rules(settings: Settings) -> str:
    """The operator's file."""
    return _HEAD + _OPERATORS_HEAD + textwrap.indent(_groups(settings), "  ")


def _groups(settings: Settings) -> str:
    # One group for all that leads to an alert, so that nothing waits for the turn of another group.
    groups = (
        Group(
            "patrolserver",
            (
                *recorded.exporters(settings),
                *recorded.servers(settings),
                *fleet_alerts(settings),
                *exporter_alerts(settings),
            ),
        ),
        Group("patrolserver.trends", recorded.trends(settings), "1m"),
    )
    return written(groups, grafana_url=settings.grafana_url, runbook_url=settings.runbook_url)
