"""Recording rules and alerts as code."""
