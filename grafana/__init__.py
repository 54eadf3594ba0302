"""What shows the exporter's metrics: dashboards as code, and the history that draws their pictures."""
