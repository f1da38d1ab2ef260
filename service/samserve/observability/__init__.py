"""Observability of a gateway: the record of each call, metrics, logs and traces."""
