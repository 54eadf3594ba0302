"""Prometheus exporter for PatrolServer."""

__version__ = "0.1.0"
