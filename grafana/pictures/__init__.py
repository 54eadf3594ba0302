"""The pictures of the dashboards: a week of the demo's fleet, played through the exporter's own code, and drawn.

``python -m grafana.pictures --renderer FOLDER`` redraws ``docs/pictures``.
"""
