"""The three dashboards, as code: ``python -m grafana.dashboards`` writes their JSON beside this file."""
