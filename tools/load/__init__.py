"""The load test: finds the capacity of a gateway (docs/load.md)."""
