"""The series: the fleet's, rendered incrementally, and the exporter's own, rendered by the client library."""
