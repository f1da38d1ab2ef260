"""Finds the knee of a gateway (docs/load.md)."""
