"""Sockets, limits, TLS: what carries requests and knows nothing of what they ask."""
