"""The rules as the Prometheus operator takes them; ``python -m grafana.prometheus_rule`` writes the file."""

from __future__ import annotations

import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
RULES = ROOT / "grafana" / "rules" / "patrolserver.yml"
TARGET = ROOT / "packaging" / "kubernetes" / "prometheusrule.yml"

_HEAD = """\
# Written by python -m grafana.prometheus_rule from grafana/rules/patrolserver.yml: change that, and run it again.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: patrolserver-exporter
  labels:
    app.kubernetes.io/name: patrolserver-exporter
spec:
"""


def rendered() -> str:
    """The file's text."""
    text = RULES.read_text()
    return _HEAD + textwrap.indent(text[text.index("groups:") :], "  ")


if __name__ == "__main__":
    TARGET.write_text(rendered())
